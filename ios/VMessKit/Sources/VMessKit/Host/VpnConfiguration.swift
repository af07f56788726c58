import VMessKitCore

/// What an app wants of its VPN. The config says most of it; this adds what belongs to the device and its user.
public struct VpnConfiguration: Sendable, Equatable {
    /// The config: V2Ray's JSON.
    public var json: String
    /// How the tunnel is started; the network is filled in by the provider.
    public var options: TunnelOptions
    /// Lets the local network past the tunnel: printers, shares, casting.
    public var bypassLan: Bool
    /// Domains whose names are asked inside the tunnel; empty: all of them.
    public var matchDomains: [String]
    /// What the system shows as the server's address. Nothing is ever sent there.
    public var remoteAddress: String

    /// Makes a configuration.
    public init(
        json: String, options: TunnelOptions = TunnelOptions(), bypassLan: Bool = false, matchDomains: [String] = [],
        remoteAddress: String = "127.0.0.1"
    ) {
        self.json = json
        self.options = options
        self.bypassLan = bypassLan
        self.matchDomains = matchDomains
        self.remoteAddress = remoteAddress
    }
}

/// Says nothing of the config, which holds ids.
extension VpnConfiguration: CustomStringConvertible, CustomDebugStringConvertible {
    public var description: String { "VpnConfiguration(\(json.utf8.count) bytes)" }
    public var debugDescription: String { description }
}
