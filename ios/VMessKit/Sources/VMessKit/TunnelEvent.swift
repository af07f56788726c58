import VMessKitCore

/// What a tunnel tells its host.
public enum TunnelEvent: Sendable, Equatable {
    /// The state has changed; the last event of a tunnel is always `stopped`.
    case stateChanged(TunnelState)
    /// Log lines, oldest first.
    case log([LogLine])
    /// The network below has changed and has been taken up.
    case networkChanged(NetworkInfo)
    /// Several flows in a row have sent to an outbound and received nothing; `likely`: why, surest first.
    case outboundUnhealthy(outbound: String, likely: [Cause])
    /// A server closed before a valid answer; `likely`: why, surest first.
    case authRejected(outbound: String, likely: [Cause])
    /// This device's clock is off by so many seconds; positive: it is fast.
    case clockSkew(seconds: Int64)
    /// A limit was reached: `what` ran out.
    case resourceLimit(what: String)
    /// Something is wrong that may pass; traffic goes on.
    case degraded(reason: String)
    /// The host was too slow: so many events other than states were dropped.
    case eventsDropped(count: UInt64)
    /// An event that this version does not know.
    case unknown(code: Int)

    init(_ event: VMessKitCore.Event) {
        switch event {
        case .stateChanged(let state): self = .stateChanged(TunnelState(state))
        case .log(let lines): self = .log(lines)
        case .networkChanged(let network): self = .networkChanged(network)
        case .outboundUnhealthy(let outbound, let likely):
            self = .outboundUnhealthy(outbound: outbound, likely: likely.map(Cause.init))
        case .authRejected(let outbound, let likely):
            self = .authRejected(outbound: outbound, likely: likely.map(Cause.init))
        case .clockSkew(let seconds): self = .clockSkew(seconds: seconds)
        case .resourceLimit(let what): self = .resourceLimit(what: what)
        case .degraded(let reason): self = .degraded(reason: reason)
        case .eventsDropped(let count): self = .eventsDropped(count: count)
        case .unknown(let code): self = .unknown(code: Int(code))
        }
    }
}
