/// What the provider uses of Apple's module `os`, for a compiler without it. Lines are printed.
public struct OSLogPrivacy: Sendable {
    public static let `public` = OSLogPrivacy()
    public static let `private` = OSLogPrivacy()
}

public struct OSLogInterpolation: StringInterpolationProtocol {
    var text = ""

    public init(literalCapacity: Int, interpolationCount: Int) {}

    public mutating func appendLiteral(_ literal: String) { text += literal }

    public mutating func appendInterpolation(_ value: @autoclosure () -> String, privacy: OSLogPrivacy = .private) {
        text += value()
    }
}

public struct OSLogMessage: ExpressibleByStringInterpolation {
    let text: String

    public init(stringLiteral value: String) { text = value }

    public init(stringInterpolation: OSLogInterpolation) { text = stringInterpolation.text }
}

public struct Logger: Sendable {
    private let category: String

    public init(subsystem: String, category: String) { self.category = "\(subsystem)/\(category)" }

    public func debug(_ message: OSLogMessage) {}
    public func info(_ message: OSLogMessage) { print(category, message.text) }
    public func warning(_ message: OSLogMessage) { print(category, message.text) }
    public func error(_ message: OSLogMessage) { print(category, message.text) }
}
