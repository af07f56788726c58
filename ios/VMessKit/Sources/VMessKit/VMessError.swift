import Foundation
import VMessKitCore

/// Everything that this library throws, and that a state carries. Show `text` and `hint` to a person, log `reason`, and
/// branch on `kind`, or on the number that is the same in every language, `code`.
public struct VMessError: Error, Sendable, Hashable {
    /// What went wrong, by where the fault lies.
    public enum Kind: Sendable, Hashable {
        /// The config has errors; `path` says where.
        case configInvalid
        /// No connection to the server could be made.
        case serverUnreachable(stage: Stage)
        /// The TLS handshake or the certificate failed.
        case tlsFailed
        /// The server closed without a valid answer, as it does for an unknown id or a wrong clock.
        case authRejected
        /// This device's clock is off by so many seconds; positive: it is fast.
        case clockSkew(seconds: Int64)
        /// The platform refused to keep a socket out of the tunnel.
        case protectFailed
        /// Reading or writing the tun device failed.
        case tunIo
        /// The tun device is gone.
        case tunGone
        /// A limit was reached: `what` ran out.
        case resourceLimit(what: String)
        /// The tunnel has been started before.
        case alreadyRunning
        /// The tunnel has been stopped.
        case stopped
        /// `what` took longer than it may.
        case timeout(what: String)
        /// The call is not legal here, or an argument is out of its range.
        case misuse
        /// Not built into this version.
        case unsupported
        /// A defect of the library.
        case `internal`
        /// The system refuses: the profile is missing or disabled, or the settings were not taken. This layer's own.
        case notPermitted
        /// The app's own code failed, such as `configuration()`. This layer's own.
        case hostFailed
        /// The VPN is not running, so nobody answers. This layer's own.
        case notRunning
        /// A kind that this version does not know.
        case unknown(code: Int)
    }

    /// What went wrong, for a program.
    public let kind: Kind
    /// What went wrong and where, for a person: one sentence.
    public let text: String
    /// What to do about it; may be empty.
    public let hint: String
    /// The technical reason below it; may be empty.
    public let reason: String
    /// The JSON path of a `configInvalid`; else empty.
    public let path: String

    /// Makes an error.
    public init(_ kind: Kind, _ text: String, hint: String = "", reason: String = "", path: String = "") {
        self.kind = kind
        self.text = text
        self.hint = hint
        self.reason = reason
        self.path = path
    }

    /// The stable number of the kind, the same in every language; from 1000 on they belong to this layer alone.
    public var code: Int {
        switch kind {
        case .configInvalid: return 1
        case .serverUnreachable: return 2
        case .tlsFailed: return 3
        case .authRejected: return 4
        case .clockSkew: return 5
        case .protectFailed: return 6
        case .tunIo: return 7
        case .tunGone: return 8
        case .resourceLimit: return 9
        case .alreadyRunning: return 10
        case .stopped: return 11
        case .timeout: return 12
        case .misuse: return 13
        case .unsupported: return 14
        case .internal: return 15
        case .notPermitted: return 1000
        case .hostFailed: return 1001
        case .notRunning: return 1002
        case .unknown(let code): return code
        }
    }

    init(_ error: TunnelError) {
        switch error {
        case .Failed(let kind, let text, let hint, let reason, let path):
            self.init(Kind(kind), text, hint: hint, reason: reason, path: path)
        }
    }

    /// Makes this layer's error of anything that was thrown; what is no error of ours is the app's own.
    init(any error: any Error) {
        switch error {
        case let error as VMessError: self = error
        case let error as TunnelError: self = VMessError(error)
        case is CancellationError: self = VMessError(.stopped, "the call was cancelled")
        default:
            self =
                VMessError(passedOn: error as NSError)
                ?? VMessError(
                    .hostFailed, "the app's own code failed", hint: "see the reason",
                    reason: String(describing: error))
        }
    }
}

extension VMessError: CustomStringConvertible {
    /// All that is known, on one line: for a log.
    public var description: String {
        var line = "\(kind): "
        if !path.isEmpty { line += "\(path): " }
        line += text
        if !reason.isEmpty { line += " (\(reason))" }
        if !hint.isEmpty { line += "; \(hint)" }
        return line
    }
}

extension VMessError: LocalizedError {
    public var errorDescription: String? { text }
    public var failureReason: String? { reason.isEmpty ? nil : reason }
    public var recoverySuggestion: String? { hint.isEmpty ? nil : hint }
}

/// How an error goes from the extension to the app, where the system makes it an `NSError`.
extension VMessError: CustomNSError {
    private enum Key {
        static let hint = "org.vmesskit.hint"
        static let reason = "org.vmesskit.reason"
        static let path = "org.vmesskit.path"
        static let detail = "org.vmesskit.detail"
    }

    public static var errorDomain: String { "org.vmesskit" }

    public var errorCode: Int { code }

    public var errorUserInfo: [String: Any] {
        var info: [String: Any] = [NSLocalizedDescriptionKey: text]
        if !hint.isEmpty {
            info[Key.hint] = hint
            info[NSLocalizedRecoverySuggestionErrorKey] = hint
        }
        if !reason.isEmpty {
            info[Key.reason] = reason
            info[NSLocalizedFailureReasonErrorKey] = reason
        }
        if !path.isEmpty { info[Key.path] = path }
        if let detail { info[Key.detail] = detail }
        return info
    }

    /// What the kind carries, as text.
    var detail: String? {
        switch kind {
        case .serverUnreachable(let stage): return stage.name
        case .clockSkew(let seconds): return String(seconds)
        case .resourceLimit(let what), .timeout(let what): return what
        default: return nil
        }
    }

    /// Reads an error that the extension has passed on, such as the one of the last disconnect; nil if it is none of
    /// ours.
    public init?(passedOn error: NSError) {
        guard error.domain == VMessError.errorDomain else { return nil }
        let text: (String) -> String = { error.userInfo[$0] as? String ?? "" }
        self.init(
            Kind(code: error.code, detail: text(Key.detail)), error.localizedDescription, hint: text(Key.hint),
            reason: text(Key.reason), path: text(Key.path))
    }
}

extension VMessError.Kind {
    init(_ kind: VMessKitCore.ErrorKind) {
        switch kind {
        case .configInvalid: self = .configInvalid
        case .serverUnreachable(let stage): self = .serverUnreachable(stage: Stage(stage))
        case .tlsFailed: self = .tlsFailed
        case .authRejected: self = .authRejected
        case .clockSkew(let seconds): self = .clockSkew(seconds: seconds)
        case .protectFailed: self = .protectFailed
        case .tunIo: self = .tunIo
        case .tunGone: self = .tunGone
        case .resourceLimit(let what): self = .resourceLimit(what: what)
        case .alreadyRunning: self = .alreadyRunning
        case .stopped: self = .stopped
        case .timeout(let what): self = .timeout(what: what)
        case .misuse: self = .misuse
        case .unsupported: self = .unsupported
        case .internal: self = .internal
        case .unknown(let code): self = .unknown(code: Int(code))
        }
    }

    /// The kind of a number, with what it carries as text.
    init(code: Int, detail: String) {
        switch code {
        case 1: self = .configInvalid
        case 2: self = .serverUnreachable(stage: Stage(name: detail))
        case 3: self = .tlsFailed
        case 4: self = .authRejected
        case 5: self = .clockSkew(seconds: Int64(detail) ?? 0)
        case 6: self = .protectFailed
        case 7: self = .tunIo
        case 8: self = .tunGone
        case 9: self = .resourceLimit(what: detail)
        case 10: self = .alreadyRunning
        case 11: self = .stopped
        case 12: self = .timeout(what: detail)
        case 13: self = .misuse
        case 14: self = .unsupported
        case 15: self = .internal
        case 1000: self = .notPermitted
        case 1001: self = .hostFailed
        case 1002: self = .notRunning
        default: self = .unknown(code: code)
        }
    }
}

/// Runs a call into the library, and turns what it throws into a `VMessError`.
func translated<Result>(_ call: () throws -> Result) throws -> Result {
    do { return try call() } catch let error as TunnelError { throw VMessError(error) } catch {
        throw VMessError(.internal, "the library has failed", reason: String(describing: error))
    }
}

/// As above, of a call that waits.
func translated<Result: Sendable>(_ call: @Sendable () async throws -> Result) async throws -> Result {
    do { return try await call() } catch let error as TunnelError { throw VMessError(error) } catch {
        throw VMessError(.internal, "the library has failed", reason: String(describing: error))
    }
}
