import Foundation
import Network
import NetworkExtension
import XCTest

@testable import VMessKitVPN

/// The provider itself, against stub modules of the system's and the real library.
final class ProviderTests: XCTestCase {
    /// A configuration as a subclass gives it.
    final class Provider: VMessPacketTunnelProvider, @unchecked Sendable {
        var json = #"{"inbounds": [{"protocol": "tun"}], "outbounds": [{"protocol": "freedom"}]}"#

        override func configuration() async throws -> VpnConfiguration {
            VpnConfiguration(json: json, bypassLan: true)
        }
    }

    /// An echo request from 172.19.0.1 to 192.0.2.9, made by hand.
    private static let ping = Data([
        0x45, 0, 0, 28, 0, 7, 0x40, 0, 64, 1, 0xcc, 0xbc, 172, 19, 0, 1, 192, 0, 2, 9, 8, 0, 0xf7, 0xb1, 0, 77, 0, 1,
    ])

    func testStartsSetsTheDeviceUpAndStops() async throws {
        let provider = Provider()
        let error = await start(provider)
        XCTAssertNil(error)
        let settings = try XCTUnwrap(provider.applied.first as? NEPacketTunnelNetworkSettings)
        XCTAssertEqual(settings.ipv4Settings?.addresses, ["172.19.0.1"])
        XCTAssertEqual(settings.ipv4Settings?.subnetMasks, ["255.255.255.252"])
        XCTAssertEqual(settings.ipv6Settings?.addresses, ["fd19::1"])
        XCTAssertEqual(settings.ipv6Settings?.networkPrefixLengths, [126])
        XCTAssertEqual(settings.dnsSettings?.servers, ["172.19.0.2"])
        XCTAssertEqual(settings.dnsSettings?.matchDomains, [""])
        let included = settings.ipv4Settings?.includedRoutes?.map(\.destinationAddress) ?? []
        XCTAssertTrue(included.contains("0.0.0.0"))
        let excluded = settings.ipv4Settings?.excludedRoutes?.map(\.destinationAddress) ?? []
        XCTAssertTrue(excluded.contains("192.168.0.0"), "\(excluded)")
        await stop(provider)
        XCTAssertTrue(provider.session.current.isStopped)
        XCTAssertNil(provider.cancelled)
    }

    /// Without a descriptor the packets go through the system's packet flow.
    func testPacketsPassThePacketFlow() async throws {
        let provider = Provider()
        let error = await start(provider)
        XCTAssertNil(error)
        provider.packetFlow.inject(ProviderTests.ping)
        let deadline = Date().addingTimeInterval(20)
        while provider.packetFlow.written.isEmpty, Date() < deadline {
            try await Task.sleep(nanoseconds: 10_000_000)
        }
        let (reply, family) = try XCTUnwrap(provider.packetFlow.written.first)
        XCTAssertEqual(Array(reply)[9], 1)
        XCTAssertEqual(Array(reply)[20], 0, "an echo reply")
        XCTAssertEqual(family, 2)
        await stop(provider)
    }

    func testAConfigWithoutTunFailsTheStart() async {
        let provider = Provider()
        provider.json = #"{"outbounds": [{"protocol": "blackhole"}]}"#
        let error = await start(provider) as? VMessError
        XCTAssertEqual(error?.kind, .configInvalid)
        XCTAssertNil(provider.session.tunnel)
    }

    func testSettingsThatTheSystemRefusesFailTheStart() async {
        let provider = Provider()
        provider.refusal = NSError(domain: "NETunnelProviderErrorDomain", code: 1)
        let error = await start(provider) as? VMessError
        XCTAssertEqual(error?.kind, .notPermitted)
    }

    func testTheAppAsksAndIsAnswered() async throws {
        let provider = Provider()
        let before = try await ask(provider, .status)
        guard case .failed(let message) = before else { return XCTFail("\(before)") }
        XCTAssertEqual(message.error.kind, .notRunning)
        _ = await start(provider)
        guard case .status(let status) = try await ask(provider, .status) else { return XCTFail("no status") }
        XCTAssertEqual(status.state, "connected")
        guard case .stats(let stats) = try await ask(provider, .stats) else { return XCTFail("no stats") }
        XCTAssertEqual(stats["dials"], 0)
        let reloaded = try await ask(provider, .reload)
        XCTAssertEqual(reloaded, .done)
        await stop(provider)
    }

    /// The system's restart: nothing is passed, and what the app has stored is found by the profile.
    func testStartsWithoutOptionsFromTheKeychain() async throws {
        let store = ConfigStore(service: "org.example.restart")
        defer { try? store.remove() }
        let provider = VMessPacketTunnelProvider()
        (provider.protocolConfiguration as? NETunnelProviderProtocol)?.providerConfiguration =
            store.providerConfiguration
        let missing = await start(provider) as? VMessError
        XCTAssertEqual(missing?.kind, .notPermitted, "nothing is stored")
        XCTAssertEqual(store.noted(), missing, "left for the app")
        try store.save(VpnConfiguration(json: Provider().json))
        let error = await start(provider)
        XCTAssertNil(error)
        XCTAssertNil(store.noted())
        await stop(provider)
    }

    func testReassertingFollowsThePath() async throws {
        let provider = Provider()
        provider.json = #"""
            {"inbounds": [{"protocol": "tun"}], "outbounds": [{"protocol": "vmess", "settings": {"vnext": [
            {"address": "127.0.0.1", "port": 9, "users": [{"id": "b831381d-6324-4d53-ad4f-8cda48b30811"}]}]}}]}
            """#
        _ = await start(provider)
        let monitor = try XCTUnwrap(NWPathMonitor.newest)
        XCTAssertTrue(monitor.isRunning)
        let wifi = NWInterface(name: "lo0", index: 1)
        let handle = try XCTUnwrap(monitor.pathUpdateHandler)
        handle(NWPath(status: .satisfied, availableInterfaces: [wifi]))
        handle(NWPath(status: .unsatisfied, availableInterfaces: []))
        await eventually { provider.reassertions == [true] }
        handle(NWPath(status: .satisfied, availableInterfaces: [wifi]))
        await eventually { provider.reassertions == [true, false] }
        await stop(provider)
        XCTAssertFalse(monitor.isRunning)
    }

    func testSleepsAndWakes() async {
        let provider = Provider()
        _ = await start(provider)
        await withCheckedContinuation { continuation in provider.sleep { continuation.resume() } }
        provider.packetFlow.inject(ProviderTests.ping)
        await eventually { !provider.packetFlow.written.isEmpty }
        provider.wake()
        await stop(provider)
    }

    func testWhatMemoryEventsMean() {
        XCTAssertEqual(MemoryPressure(warning: false, critical: false), .normal)
        XCTAssertEqual(MemoryPressure(warning: true, critical: false), .low)
        XCTAssertEqual(MemoryPressure(warning: true, critical: true), .critical)
    }

    /// A new bridge takes the packet flow over from the one before, without losing a packet.
    func testAReloadLosesNoPacketOfTheFlow() async throws {
        let provider = Provider()
        _ = await start(provider)
        for round in 0..<5 {
            provider.json =
                #"{"inbounds": [{"protocol": "tun", "settings": {"mtu": \#(1400 + round)}}], "#
                + #""outbounds": [{"protocol": "freedom"}]}"#
            let reloaded = try await ask(provider, .reload)
            XCTAssertEqual(reloaded, .done)
            XCTAssertEqual(provider.applied.count, round + 2)
            provider.packetFlow.inject(ProviderTests.ping)
            await eventually { provider.packetFlow.written.count == round + 1 }
        }
        await stop(provider)
    }

    func testAProviderThatIsLetGoIsGone() async throws {
        weak var gone: Provider?
        do {
            let provider = Provider()
            gone = provider
            _ = await start(provider)
            await stop(provider)
        }
        await eventually { gone == nil }
        do {
            let provider = Provider()
            gone = provider
            _ = await start(provider)
            XCTAssertNotNil(provider.session.tunnel)
        }
        await eventually { gone == nil }
    }

    private func eventually(line: UInt = #line, _ holds: () -> Bool) async {
        let deadline = Date().addingTimeInterval(20)
        while !holds() {
            guard Date() < deadline else { return XCTFail("it never came to hold", line: line) }
            try? await Task.sleep(nanoseconds: 10_000_000)
        }
    }

    private func ask(_ provider: VMessPacketTunnelProvider, _ request: AppRequest) async throws -> AppResponse {
        let message = try AppMessages.encode(request)
        let answer = await withCheckedContinuation { continuation in
            provider.handleAppMessage(message) { continuation.resume(returning: $0) }
        }
        return try AppMessages.decode(AppResponse.self, from: XCTUnwrap(answer))
    }

    private func start(_ provider: VMessPacketTunnelProvider) async -> (any Error)? {
        await withCheckedContinuation { continuation in
            provider.startTunnel(options: nil) { continuation.resume(returning: $0) }
        }
    }

    private func stop(_ provider: VMessPacketTunnelProvider) async {
        await withCheckedContinuation { continuation in
            provider.stopTunnel(with: .userInitiated) { continuation.resume() }
        }
    }
}
