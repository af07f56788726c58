import Dispatch

/// What the provider uses of Apple's module `Network`, for a compiler without it. Tests call `pathUpdateHandler`.
public struct NWInterface: Sendable, Hashable {
    public let name: String
    public let index: Int

    public init(name: String, index: Int) {
        self.name = name
        self.index = index
    }
}

public struct NWPath: Sendable, Equatable {
    public enum Status: Sendable { case satisfied, unsatisfied, requiresConnection }

    public var status: Status
    public var availableInterfaces: [NWInterface]
    public var isExpensive: Bool
    public var supportsIPv4: Bool
    public var supportsIPv6: Bool

    public init(
        status: Status, availableInterfaces: [NWInterface], isExpensive: Bool = false, supportsIPv4: Bool = true,
        supportsIPv6: Bool = true
    ) {
        self.status = status
        self.availableInterfaces = availableInterfaces
        self.isExpensive = isExpensive
        self.supportsIPv4 = supportsIPv4
        self.supportsIPv6 = supportsIPv6
    }
}

public final class NWPathMonitor: @unchecked Sendable {
    /// The newest monitor: the tests speak through it.
    public nonisolated(unsafe) static var newest: NWPathMonitor?

    public var pathUpdateHandler: (@Sendable (NWPath) -> Void)?
    public private(set) var isRunning = false

    public init() { NWPathMonitor.newest = self }

    public func start(queue: DispatchQueue) { isRunning = true }

    public func cancel() { isRunning = false }
}
