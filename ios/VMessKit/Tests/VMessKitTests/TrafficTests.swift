import Foundation
import VMessKit
import XCTest

/// Real packets through a descriptor, the stack, a socket that was protected, and back.
final class TrafficTests: XCTestCase {
    private let payload = (0..<1000).map { UInt8(truncatingIfNeeded: $0) }

    func testPingsAreAnswered() async throws {
        try await running(Configs.redirected(9)) { _, _, pair in
            XCTAssertTrue(pair.send(Packets.ping(from: TcpClient.address, to: "192.0.2.9", payload: payload)))
            let reply = try XCTUnwrap(pair.receive { Packets.proto($0) == Packets.icmp })
            XCTAssertTrue(Packets.isSound(reply))
            XCTAssertEqual(Packets.body(reply).first, 0)
            XCTAssertEqual(Packets.payload(reply), payload)
        }
    }

    func testDatagramsComeBack() async throws {
        let echo = EchoServer()
        try await running(Configs.redirected(echo.port)) { _, platform, pair in
            let reply = try XCTUnwrap(exchange(pair))
            XCTAssertTrue(Packets.isSound(reply))
            XCTAssertEqual(Packets.source(reply), "192.0.2.9")
            XCTAssertEqual(Packets.payload(reply), payload)
            XCTAssertEqual(platform.sockets, 1, "the socket was protected")
        }
    }

    func testStreamsComeBack() async throws {
        let echo = EchoServer()
        try await running(Configs.redirected(echo.port)) { _, _, pair in
            let client = TcpClient(pair, port: 40_000, server: "192.0.2.9")
            XCTAssertTrue(client.connect())
            for _ in 0..<20 { XCTAssertEqual(client.exchange(payload), payload) }
        }
    }

    /// Packets in here, a VMess server of ours in the same process, the target, and back.
    func testPacketsPassOurOwnServer() async throws {
        let echo = EchoServer()
        let port = closedPort()
        let server = try Tunnel(config: Configs.server(port, redirect: echo.port))
        try await server.start()
        try await running(Configs.vmess(port, tun: true)) { tunnel, platform, pair in
            let report = try await tunnel.check()
            XCTAssertGreaterThan(report.latencyMicros, 0)
            XCTAssertEqual(tunnel.status.state, .connected)
            let client = TcpClient(pair, port: 40_002, server: "192.0.2.9")
            XCTAssertTrue(client.connect())
            for _ in 0..<10 { XCTAssertEqual(client.exchange(payload), payload) }
            let reply = try XCTUnwrap(exchange(pair))
            XCTAssertEqual(Packets.payload(reply), payload)
            XCTAssertGreaterThanOrEqual(platform.sockets, 3)
            let connections = try await tunnel.connections()
            XCTAssertTrue(connections.contains { $0.target == "192.0.2.9:80" && $0.network == .tcp })
            XCTAssertGreaterThanOrEqual(tunnel.stats.uplinkBytes, 11_000)
        }
        try await server.stop()
    }

    /// A wrong id is named, and the app behind the tunnel is not left hanging.
    func testOurServerRefusesAnUnknownId() async throws {
        let port = closedPort()
        let server = try Tunnel(config: Configs.server(port, redirect: 9))
        try await server.start()
        let tunnel = try Tunnel(config: Configs.vmess(port, id: UUID().uuidString))
        try await tunnel.start()
        let events = tunnel.events
        let error = await failure { try await tunnel.check(timeout: 3) }
        XCTAssertTrue([.authRejected, .timeout(what: "check")].contains(error.kind), "\(error)")
        try await tunnel.stop()
        try await server.stop()
        for await event in events {
            if case .authRejected(_, let likely) = event { XCTAssertTrue(likely.contains { $0.kind == .id }) }
        }
    }

    func testADialThatIsNotProtectedResetsTheApp() async throws {
        let echo = EchoServer()
        let refusing = TestPlatform { _ in throw Refusal(description: "no") }
        try await running(Configs.redirected(echo.port), refusing) { _, _, pair in
            let client = TcpClient(pair, port: 40_001, server: "192.0.2.9")
            if client.connect() {
                _ = client.exchange(payload)
                XCTAssertTrue(client.isReset())
            }
        }
    }

    func testASwappedDeviceKeepsTheFlow() async throws {
        let echo = EchoServer()
        let second = TunPair()
        try await running(Configs.redirected(echo.port)) { tunnel, _, pair in
            XCTAssertNotNil(exchange(pair))
            try await tunnel.setTun(second.handle())
            XCTAssertTrue(pair.deviceCloses(), "the old one closes after the swap")
            XCTAssertNotNil(exchange(second))
            XCTAssertEqual(tunnel.stats.udpTotal, 1, "it is the same flow")
        }
    }

    /// A datagram there, and what comes back.
    private func exchange(_ pair: TunPair) -> [UInt8]? {
        pair.send(
            Packets.udp(from: TcpClient.address, port: 4000, to: "192.0.2.9", toPort: 7, payload: payload))
        return pair.receive { Packets.proto($0) == Packets.udp }
    }

    private func running(
        _ config: String, _ platform: TestPlatform = TestPlatform(),
        _ work: (Tunnel, TestPlatform, TunPair) async throws -> Void
    ) async throws {
        let pair = TunPair()
        let tunnel = try Tunnel(config: config, platform: platform)
        try await tunnel.start(tun: pair.handle())
        try await work(tunnel, platform, pair)
        try await tunnel.stop()
        XCTAssertTrue(pair.deviceCloses())
    }
}
