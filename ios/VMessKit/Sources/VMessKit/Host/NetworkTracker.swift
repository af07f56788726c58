/// What the system says of the path to the internet.
public struct PathFacts: Sendable, Equatable {
    /// An interface that the path may use, best first.
    public struct Interface: Sendable, Equatable {
        /// Such as `en0`.
        public let name: String
        /// The system's number for it.
        public let index: Int
        /// Our addresses on it.
        public let addresses: [String]

        /// Makes an interface.
        public init(name: String, index: Int, addresses: [String] = []) {
            self.name = name
            self.index = index
            self.addresses = addresses
        }
    }

    /// Whether anything can be reached.
    public let isSatisfied: Bool
    /// The interfaces, best first; tunnels may be among them.
    public let interfaces: [Interface]
    /// Whether IPv4 can be reached.
    public let hasV4: Bool
    /// Whether IPv6 can be reached.
    public let hasV6: Bool
    /// Whether traffic costs money.
    public let isExpensive: Bool

    /// Makes the facts.
    public init(isSatisfied: Bool, interfaces: [Interface], hasV4: Bool, hasV6: Bool, isExpensive: Bool) {
        self.isSatisfied = isSatisfied
        self.interfaces = interfaces
        self.hasV4 = hasV4
        self.hasV6 = hasV6
        self.isExpensive = isExpensive
    }
}

/// Follows the network below the tunnel, from the system's snapshots of it, which repeat themselves, name our own device,
/// and begin with one that tells of no change.
public final class NetworkTracker: Sendable {
    private struct State {
        var isKnown = false
        var network: NetworkInfo?
    }

    private let state = Locked(State())

    /// Makes a tracker that knows of no network.
    public init() {}

    /// The network now; nil: none, or none known yet.
    public var network: NetworkInfo? { state.withLock { $0.network } }

    /// Takes a snapshot in. Answers whether the network is another than before; the first one tells of no change, unless
    /// it says that there is no network.
    @discardableResult
    public func update(_ facts: PathFacts) -> Bool {
        let network = NetworkTracker.network(of: facts)
        return state.withLock { state in
            let wasKnown = state.isKnown
            let before = state.network
            state.isKnown = true
            state.network = network
            return wasKnown ? before != network : network == nil
        }
    }

    private static func network(of facts: PathFacts) -> NetworkInfo? {
        guard facts.isSatisfied else { return nil }
        let best = facts.interfaces.first { !isTunnel($0.name) }
        let addresses = (best?.addresses ?? []).filter(isUsable).sorted()
        // Another interface, or other addresses on it, are another network: what was dialled there is gone.
        let id = fingerprint(([best?.name ?? ""] + addresses).joined(separator: " "))
        return NetworkInfo(
            id: id, index: UInt32(clamping: best?.index ?? 0), addresses: addresses, dns: [], hasV4: facts.hasV4,
            hasV6: facts.hasV6, nat64Prefix: nil, metered: facts.isExpensive, validated: true, captivePortal: false)
    }

    /// Whether it is a tunnel, ours or another's.
    private static func isTunnel(_ name: String) -> Bool {
        ["utun", "ipsec", "ppp", "tun", "tap", "lo"].contains { name.hasPrefix($0) }
    }

    /// Whether an address tells networks apart: no loopback, no link-local one.
    private static func isUsable(_ address: String) -> Bool {
        guard let bytes = Prefix.literal(address) else { return false }
        let outside = ["127.0.0.0/8", "169.254.0.0/16", "fe80::/10", "::1/128"].compactMap { try? Prefix($0) }
        return !outside.contains { $0.contains(Prefix(bytes: bytes, length: bytes.count * 8)) }
    }

    /// FNV-1a: the same in every process.
    private static func fingerprint(_ text: String) -> UInt64 {
        text.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    }
}
