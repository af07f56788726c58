/// How the system is asked to set a tun device up: what a config says of it, and what the app adds.
public struct TunPlan: Sendable, Equatable {
    /// What the system shows as the server's address.
    public let remoteAddress: String
    /// In bytes.
    public let mtu: Int
    /// The device's addresses with the prefixes of their networks.
    public let addresses: [Prefix]
    /// What goes in.
    public let routes: [Prefix]
    /// What stays out.
    public let excluded: [Prefix]
    /// The DNS servers, addresses inside the tunnel.
    public let dns: [String]
    /// The domains that are asked of them; an empty text: all.
    public let matchDomains: [String]

    /// Makes a plan.
    ///
    /// - Throws: `VMessError`, `misuse`, if the settings hold what is no address.
    public init(_ settings: TunSettings, _ configuration: VpnConfiguration) throws {
        let parse: ([String]) throws -> [Prefix] = { try $0.map { try Prefix($0) } }
        addresses = try parse(settings.addresses)
        let wanted = try parse(settings.routes).map(\.network)
        let outside = try parse(settings.excludedRoutes).map(\.network) + (configuration.bypassLan ? Prefix.local : [])
        // Networks of our own lie in those of a LAN; the more exact route leads into the tunnel.
        let own = try addresses.map(\.network) + parse(settings.dns)
        let carriesV6 = addresses.contains(where: \.isV6)
        // The system takes routes of a family only beside an address of it.
        routes = (wanted + own).filter { carriesV6 || !$0.isV6 }.removingDuplicates()
        excluded = outside.filter { out in wanted.contains { $0.overlaps(out) } && (carriesV6 || !out.isV6) }
            .removingDuplicates()
        dns = settings.dns
        // All domains is a list with an empty one; an empty list would leave the DNS servers unused.
        matchDomains = configuration.matchDomains.isEmpty ? [""] : configuration.matchDomains
        remoteAddress = configuration.remoteAddress
        mtu = Int(settings.mtu)
    }
}

extension Array where Element: Hashable {
    /// Each element once, in the order of their first.
    fileprivate func removingDuplicates() -> [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
