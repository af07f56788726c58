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
        // An echo request from 172.19.0.1 to 192.0.2.9, made by hand.
        let ping: [UInt8] = [
            0x45, 0, 0, 28, 0, 7, 0x40, 0, 64, 1, 0xcc, 0xbc, 172, 19, 0, 1, 192, 0, 2, 9, 8, 0, 0xf7, 0xb1, 0, 77, 0,
            1,
        ]
        provider.packetFlow.inject(Data(ping))
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

    private func ask(_ provider: Provider, _ request: AppRequest) async throws -> AppResponse {
        let message = try AppMessages.encode(request)
        let answer = await withCheckedContinuation { continuation in
            provider.handleAppMessage(message) { continuation.resume(returning: $0) }
        }
        return try AppMessages.decode(AppResponse.self, from: XCTUnwrap(answer))
    }

    private func start(_ provider: Provider) async -> (any Error)? {
        await withCheckedContinuation { continuation in
            provider.startTunnel(options: nil) { continuation.resume(returning: $0) }
        }
    }

    private func stop(_ provider: Provider) async {
        await withCheckedContinuation { continuation in
            provider.stopTunnel(with: .userInitiated) { continuation.resume() }
        }
    }
}
