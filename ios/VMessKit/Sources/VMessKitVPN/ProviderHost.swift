import Foundation
import NetworkExtension
import VMessKit
import os

/// The operating system as a session sees it: its provider, which it does not hold.
final class ProviderHost: VpnHost, @unchecked Sendable {
    /// Set once, before anything is asked.
    weak var provider: VMessPacketTunnelProvider?

    private let flow = Locked<FlowAdapter?>(nil)
    private let logger = Logger(subsystem: "org.vmesskit", category: "provider")

    func configuration() async throws -> VpnConfiguration {
        try await present().configuration()
    }

    func apply(_ plan: TunPlan) async throws {
        let provider = try present()
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            provider.setTunnelNetworkSettings(NEPacketTunnelNetworkSettings(plan)) { error in
                guard let error else { return continuation.resume() }
                continuation.resume(
                    throwing: VMessError(
                        .notPermitted, "the system did not take the tunnel's settings",
                        hint: "check the addresses and routes of the config's tun inbound",
                        reason: String(describing: error)))
            }
        }
    }

    func device(_ plan: TunPlan) throws -> any TunDevice {
        if let fd = Utun.find() { return UtunDevice(fd: fd) }
        log(.warning, "the tunnel's descriptor was not found: packets take the longer way")
        let provider = try present()
        let adapter = flow.withLock { flow in
            let adapter = flow ?? FlowAdapter(provider.packetFlow)
            flow = adapter
            return adapter
        }
        return try PacketBridge(adapter, mtu: plan.mtu)
    }

    func reassert(_ isReasserting: Bool) {
        provider?.reasserting = isReasserting
    }

    func log(_ level: LogLevel, _ text: String) {
        switch level {
        case .error: logger.error("\(text, privacy: .public)")
        case .warning: logger.warning("\(text, privacy: .public)")
        case .info: logger.info("\(text, privacy: .public)")
        case .debug, .none: logger.debug("\(text, privacy: .private)")
        }
        let line = LogLine(level: level, unixMillis: Int64(Date().timeIntervalSince1970 * 1000), text: text)
        provider?.session.logs.add([line])
    }

    func ended(_ error: VMessError) {
        try? provider?.store.note(error)
        provider?.tunnelEnded(error)
        provider?.cancelTunnelWithError(error)
    }

    private func present() throws -> VMessPacketTunnelProvider {
        guard let provider else { throw VMessError(.stopped, "the provider is gone") }
        return provider
    }
}

/// The system's device by its own descriptor.
private final class UtunDevice: TunDevice {
    let fd: Int32
    let framing: Framing = .darwinUtun

    init(fd: Int32) { self.fd = fd }

    /// The system takes it down when the provider has stopped.
    func close() {}
}

/// The system's packet flow, which one reader has after the other: only one question to the system is ever open, and the
/// newest reader gets its answer.
private final class FlowAdapter: PacketFlow, @unchecked Sendable {
    private struct Reading {
        var answer: (@Sendable ([Data]) -> Void)?
        var isAsking = false
    }

    private let flow: NEPacketTunnelFlow
    private let reading = Locked(Reading())

    init(_ flow: NEPacketTunnelFlow) { self.flow = flow }

    func readPackets(_ answer: @escaping @Sendable ([Data]) -> Void) {
        let isFirst = reading.withLock { reading in
            reading.answer = answer
            defer { reading.isAsking = true }
            return !reading.isAsking
        }
        guard isFirst else { return }
        flow.readPackets { [reading] packets, _ in
            let answer = reading.withLock { reading in
                reading.isAsking = false
                defer { reading.answer = nil }
                return reading.answer
            }
            answer?(packets)
        }
    }

    func writePackets(_ packets: [Data]) {
        let families = packets.map { NSNumber(value: ($0.first ?? 0) >> 4 == 6 ? AF_INET6 : AF_INET) }
        flow.writePackets(packets, withProtocols: families)
    }
}

extension NEPacketTunnelNetworkSettings {
    /// A plan in the system's words.
    convenience init(_ plan: TunPlan) {
        self.init(tunnelRemoteAddress: plan.remoteAddress)
        mtu = NSNumber(value: plan.mtu)
        let (v4, v6) = (plan.addresses.filter { !$0.isV6 }, plan.addresses.filter(\.isV6))
        if !v4.isEmpty {
            let settings = NEIPv4Settings(addresses: v4.map(\.address), subnetMasks: v4.map(\.maskText))
            settings.includedRoutes = plan.routes.compactMap(NEIPv4Route.init(prefix:))
            settings.excludedRoutes = plan.excluded.compactMap(NEIPv4Route.init(prefix:))
            ipv4Settings = settings
        }
        if !v6.isEmpty {
            let settings = NEIPv6Settings(
                addresses: v6.map(\.address), networkPrefixLengths: v6.map { NSNumber(value: $0.length) })
            settings.includedRoutes = plan.routes.compactMap(NEIPv6Route.init(prefix:))
            settings.excludedRoutes = plan.excluded.compactMap(NEIPv6Route.init(prefix:))
            ipv6Settings = settings
        }
        if !plan.dns.isEmpty {
            let dns = NEDNSSettings(servers: plan.dns)
            dns.matchDomains = plan.matchDomains
            dnsSettings = dns
        }
    }
}

extension NEIPv4Route {
    fileprivate convenience init?(prefix: Prefix) {
        guard !prefix.isV6 else { return nil }
        self.init(destinationAddress: prefix.address, subnetMask: prefix.maskText)
    }
}

extension NEIPv6Route {
    fileprivate convenience init?(prefix: Prefix) {
        guard prefix.isV6 else { return nil }
        self.init(destinationAddress: prefix.address, networkPrefixLength: NSNumber(value: prefix.length))
    }
}
