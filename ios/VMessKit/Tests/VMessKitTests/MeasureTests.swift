import Foundation
import VMessKit
import XCTest

/// What an app does before it has a tunnel: subscriptions, and measuring what they list.
final class MeasureTests: XCTestCase {
    func testEachConfigGetsItsOwnFigureOrError() async throws {
        let (web, port) = (TcpServer(TcpServer.giveNothing), closedPort())
        let server = try Tunnel(config: Configs.server(port, redirect: web.port))
        try await server.start()
        let request = MeasureRequest(
            configs: [Configs.vmess(port), Configs.vmess(closedPort()), "{", Configs.quiet],
            url: "http://192.0.2.1/generate_204", timeoutMillis: 10_000, parallel: 2)
        let platform = TestPlatform()
        let measured = try await VMess.measure(request, platform: platform)
        XCTAssertEqual(measured.map { $0.error?.code }, [nil, 2, 1, 13], "\(measured)")
        XCTAssertEqual(measured.map { $0.latency == nil }, [false, true, true, true])
        XCTAssertTrue((measured[0].latency ?? 0) > 0)
        XCTAssertGreaterThanOrEqual(platform.sockets, 2)

        let wrong = MeasureRequest(configs: [], url: "gopher://127.0.0.1", timeoutMillis: 1000, parallel: 1)
        let error = await failure { try await VMess.measure(wrong) }
        XCTAssertEqual(error.kind, .misuse)
        XCTAssertFalse(error.hint.isEmpty)
        try await server.stop()
    }

    func testSubscriptionsAreRead() async throws {
        let body = "vmess://\(Configs.id)@server.example:443?type=tcp#home\nss://nothing\nvmess://broken\n"
        let found = try VMess.parseSubscription(Data(body.utf8))
        XCTAssertEqual(found.servers.map(\.name), ["home"])
        XCTAssertFalse(VMess.validateConfig(found.servers[0].config).contains { $0.severity == .error })
        XCTAssertEqual(found.diagnostics.map(\.path), ["line 2", "line 3"])
        XCTAssertEqual(found.diagnostics.map(\.severity), [.warning, .error])
        let page = await failure { try VMess.parseSubscription(Data("<html>".utf8)) }
        XCTAssertEqual(page.kind, .configInvalid)
        XCTAssertTrue(page.text.contains("web page"))
        let empty = await failure { try VMess.parseSubscription(Data()) }
        XCTAssertEqual(empty.kind, .configInvalid)
    }
}
