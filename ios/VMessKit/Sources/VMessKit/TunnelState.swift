import Foundation
import VMessKitCore

/// The state of a tunnel.
public enum TunnelState: Sendable, Equatable {
    /// Made, not started.
    case idle
    /// `start` is under way.
    case starting
    /// Started; no server has answered yet.
    case connecting
    /// A server has answered, or there is none to dial.
    case connected
    /// There is no network.
    case noNetwork
    /// Running, with a fault that may pass.
    case degraded(reason: String)
    /// `stop` is under way.
    case stopping
    /// Over, for good; the error says why if it was not asked for.
    case stopped(VMessError?)

    /// Whether it is over.
    public var isStopped: Bool {
        if case .stopped = self { return true }
        return false
    }

    init(_ state: VMessKitCore.State) {
        switch state {
        case .idle: self = .idle
        case .starting: self = .starting
        case .connecting: self = .connecting
        case .connected: self = .connected
        case .noNetwork: self = .noNetwork
        case .degraded(let reason): self = .degraded(reason: reason)
        case .stopping: self = .stopping
        case .stopped(let error): self = .stopped(error.map(VMessError.init))
        }
    }
}

/// The state, for how long it has been so, and the newest error.
public struct TunnelStatus: Sendable, Equatable {
    /// The state.
    public let state: TunnelState
    /// For how many seconds it has been so.
    public let since: TimeInterval
    /// The newest error, if there was one.
    public let lastError: VMessError?

    init(_ status: VMessKitCore.Status) {
        state = TunnelState(status.state)
        since = TimeInterval(status.sinceMillis) / 1000
        lastError = status.lastError.map(VMessError.init)
    }
}
