import Foundation

/// What the provider uses of Apple's module `NetworkExtension`, for a compiler without it. What only tests use is said to be
/// so; all else has the names and the types that the SDK for iOS 15 has.
open class NETunnelProvider: NSObject {
    public var protocolConfiguration: NEVPNProtocol = NETunnelProviderProtocol()
    public var reasserting = false {
        didSet { lock.withLock { asserted.append(reasserting) } }
    }
    private let lock = NSLock()
    private var asserted: [Bool] = []
    /// Tests: every value that `reasserting` was given.
    public var reassertions: [Bool] { lock.withLock { asserted } }
    /// Tests: the settings in the order in which they were set.
    public var applied: [NETunnelNetworkSettings?] = []
    /// Tests: what the next settings are refused with.
    public var refusal: (any Error)?

    public override init() { super.init() }

    open func handleAppMessage(_ messageData: Data, completionHandler: ((Data?) -> Void)? = nil) {}

    open func setTunnelNetworkSettings(
        _ settings: NETunnelNetworkSettings?, completionHandler: ((Error?) -> Void)? = nil
    ) {
        if refusal == nil { applied.append(settings) }
        completionHandler?(refusal)
    }
}

open class NEPacketTunnelProvider: NETunnelProvider {
    public let packetFlow = NEPacketTunnelFlow()
    /// Tests: what the tunnel was cancelled with.
    public var cancelled: (any Error)?

    open func startTunnel(options: [String: NSObject]? = nil, completionHandler: @escaping (Error?) -> Void) {}

    open func stopTunnel(with reason: NEProviderStopReason, completionHandler: @escaping () -> Void) {}

    open func sleep(completionHandler: @escaping () -> Void) {}

    open func wake() {}

    open func cancelTunnelWithError(_ error: Error?) {
        cancelled = error
        onCancel?(error)
    }

    /// The system's end of a cancelled tunnel.
    var onCancel: (((any Error)?) -> Void)?
}

open class NEPacketTunnelFlow: NSObject, @unchecked Sendable {
    private let lock = NSLock()
    private var queued: [Data] = []
    private var reader: (([Data], [NSNumber]) -> Void)?
    private var out: [(Data, NSNumber)] = []

    open func readPackets(completionHandler: @escaping ([Data], [NSNumber]) -> Void) {
        lock.withLock { reader = completionHandler }
        handOver()
    }

    @discardableResult
    open func writePackets(_ packets: [Data], withProtocols protocols: [NSNumber]) -> Bool {
        lock.withLock { out += zip(packets, protocols) }
        return true
    }

    /// Tests: an app sends a packet.
    public func inject(_ packet: Data) {
        lock.withLock { queued.append(packet) }
        handOver()
    }

    /// Tests: what was written so far, with the address families.
    public var written: [(Data, NSNumber)] { lock.withLock { out } }

    private func handOver() {
        lock.lock()
        guard !queued.isEmpty, let reader = reader else { return lock.unlock() }
        let packets = queued
        self.reader = nil
        queued = []
        lock.unlock()
        reader(packets, packets.map { _ in 2 })
    }
}

public enum NEProviderStopReason: Int, Sendable {
    case none = 0
    case userInitiated = 1
    case providerFailed = 2
    case noNetworkAvailable = 3
}

open class NETunnelNetworkSettings: NSObject {
    public let tunnelRemoteAddress: String
    public var dnsSettings: NEDNSSettings?

    public init(tunnelRemoteAddress address: String) { tunnelRemoteAddress = address }
}

open class NEPacketTunnelNetworkSettings: NETunnelNetworkSettings {
    public var ipv4Settings: NEIPv4Settings?
    public var ipv6Settings: NEIPv6Settings?
    public var mtu: NSNumber?
}

open class NEIPv4Settings: NSObject {
    public let addresses: [String]
    public let subnetMasks: [String]
    public var includedRoutes: [NEIPv4Route]?
    public var excludedRoutes: [NEIPv4Route]?

    public init(addresses: [String], subnetMasks: [String]) {
        self.addresses = addresses
        self.subnetMasks = subnetMasks
    }
}

open class NEIPv6Settings: NSObject {
    public let addresses: [String]
    public let networkPrefixLengths: [NSNumber]
    public var includedRoutes: [NEIPv6Route]?
    public var excludedRoutes: [NEIPv6Route]?

    public init(addresses: [String], networkPrefixLengths: [NSNumber]) {
        self.addresses = addresses
        self.networkPrefixLengths = networkPrefixLengths
    }
}

open class NEIPv4Route: NSObject {
    public let destinationAddress: String
    public let destinationSubnetMask: String

    public init(destinationAddress address: String, subnetMask: String) {
        destinationAddress = address
        destinationSubnetMask = subnetMask
    }
}

open class NEIPv6Route: NSObject {
    public let destinationAddress: String
    public let destinationNetworkPrefixLength: NSNumber

    public init(destinationAddress address: String, networkPrefixLength: NSNumber) {
        destinationAddress = address
        destinationNetworkPrefixLength = networkPrefixLength
    }
}

open class NEDNSSettings: NSObject {
    public let servers: [String]
    public var matchDomains: [String]?

    public init(servers: [String]) { self.servers = servers }
}
