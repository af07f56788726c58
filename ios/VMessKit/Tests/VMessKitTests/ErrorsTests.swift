import Foundation
import VMessKitCore
import XCTest

@testable import VMessKit

/// Every kind of error, made by the library where it can be, and its texts as an app reads them.
final class ErrorsTests: XCTestCase {
    func testConfigInvalid() async {
        let error = await failure { try Tunnel(config: #"{"outbounds": [{"protocol": "vmes"}]}"#) }
        XCTAssertEqual(error.kind, .configInvalid)
        XCTAssertEqual(error.path, "outbounds[0].protocol")
        XCTAssertTrue(error.hint.contains("vmess"), "\(error)")
        assertShown(error, 1)
    }

    func testServerUnreachable() async throws {
        let error = try await checked(Configs.vmess(closedPort()))
        XCTAssertEqual(error.kind, .serverUnreachable(stage: .connect))
        assertShown(error, 2)
    }

    func testTlsFailed() async throws {
        let server = TcpServer(TcpServer.talk)
        let tls = Configs.vmess(server.port).replacingOccurrences(
            of: "}]}]}}", with: #"}]}]}, "streamSettings": {"security": "tls"}}"#)
        let error = try await checked(tls)
        XCTAssertEqual(error.kind, .tlsFailed)
        XCTAssertTrue(error.reason.contains("TLS") && !error.hint.isEmpty, "\(error)")
        assertShown(error, 3)
    }

    func testClockSkew() async throws {
        let (clock, server) = (TimeServer(ahead: 3600), TcpServer(TcpServer.readOnce))
        let sntp = #", "vmesskit": {"sntp": {"server": "127.0.0.1:\#(clock.port)"}}}"#
        let tunnel = try Tunnel(config: String(Configs.vmess(server.port).dropLast()) + sntp)
        try await tunnel.start()
        // A wrong clock is known only once a time server was asked, which a refusal leads to.
        var error = await failure { try await tunnel.check() }
        let deadline = Date().addingTimeInterval(patience)
        while error.code != 5, Date() < deadline {
            try await Task.sleep(nanoseconds: 50_000_000)
            error = await failure { try await tunnel.check() }
        }
        guard case .clockSkew(let seconds) = error.kind else { return XCTFail("\(error)") }
        XCTAssertTrue((-3610...(-3590)).contains(seconds), "\(seconds)")
        assertShown(error, 5)
        try await tunnel.stop()
    }

    func testAuthRejected() async throws {
        let server = TcpServer(TcpServer.readOnce)
        let error = try await checked(Configs.vmess(server.port))
        XCTAssertEqual(error.kind, .authRejected)
        assertShown(error, 4)
    }

    func testProtectFailedWithTheReasonOfTheCallback() async throws {
        let refusing = TestPlatform { _ in throw Refusal(description: "no such socket") }
        let error = try await checked(Configs.vmess(closedPort()), refusing)
        XCTAssertEqual(error.kind, .protectFailed)
        XCTAssertTrue(error.reason.contains("no such socket"), "\(error)")
        XCTAssertEqual(refusing.sockets, 1)
        assertShown(error, 6)
    }

    func testTunIo() async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("vmesskit-\(UUID()).tun").path
        let descriptor = open(path, O_RDWR | O_CREAT, 0o600)
        defer { unlink(path) }
        let tunnel = try Tunnel(config: Configs.redirected(9))
        let handle = TunHandle(fd: descriptor, mtu: 1500, ownership: .owned, framing: .rawIp)
        let error = await failure { try await tunnel.start(tun: handle) }
        XCTAssertEqual(error.kind, .tunIo)
        assertShown(error, 7)
    }

    func testTunGone() async throws {
        let pair = TunPair()
        let tunnel = try Tunnel(config: Configs.redirected(9))
        try await tunnel.start(tun: pair.handle())
        pair.close()
        guard case .stopped(let error?)? = await first(in: tunnel.states, where: \.isStopped) else {
            return XCTFail("it did not stop with an error")
        }
        XCTAssertEqual(error.kind, .tunGone)
        XCTAssertEqual(tunnel.status.lastError, error)
        assertShown(error, 8)
    }

    func testResourceLimit() async throws {
        let taken = TakenPort()
        let tunnel = try Tunnel(config: Configs.socks(taken.port))
        let error = await failure { try await tunnel.start() }
        XCTAssertEqual(error.kind, .resourceLimit(what: "listening port"))
        assertShown(error, 9)
    }

    func testAlreadyRunningAndStopped() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        try await tunnel.start()
        let again = await failure { try await tunnel.start() }
        XCTAssertEqual(again.kind, .alreadyRunning)
        assertShown(again, 10)
        try await tunnel.stop()
        let late = await failure { try await tunnel.start() }
        XCTAssertEqual(late.kind, .stopped)
        assertShown(late, 11)
    }

    func testTimeout() async throws {
        let server = TcpServer(TcpServer.swallow)
        let tunnel = try Tunnel(config: Configs.vmess(server.port))
        try await tunnel.start()
        let error = await failure { try await tunnel.check(timeout: 0.3) }
        XCTAssertEqual(error.kind, .timeout(what: "check"))
        assertShown(error, 12)
        try await tunnel.stop()
    }

    func testACallbackThatBlocksTimesTheStopOut() async throws {
        let blocking = TestPlatform { _ in Thread.sleep(forTimeInterval: 3) }
        let tunnel = try Tunnel(config: Configs.vmess(closedPort()), platform: blocking)
        try await tunnel.start()
        let slow = await failure { try await tunnel.check(timeout: 0.2) }
        XCTAssertEqual(slow.kind, .timeout(what: "check"))
        let stuck = await failure { try await tunnel.stop(timeout: 0.2) }
        guard case .timeout = stuck.kind else { return XCTFail("\(stuck)") }
        let last = await first(in: tunnel.states, where: \.isStopped)
        XCTAssertNotNil(last)
    }

    func testMisuse() async throws {
        let options = TunnelOptions(memoryLimitBytes: 1)
        let small = await failure { try Tunnel(config: Configs.quiet, options: options) }
        XCTAssertEqual(small.kind, .misuse)
        assertShown(small, 13)
        let tunnel = try Tunnel(config: Configs.redirected(9))
        let handle = TunHandle(fd: -1, mtu: nil, ownership: .borrowed, framing: .rawIp)
        let none = await failure { try await tunnel.start(tun: handle) }
        XCTAssertEqual(none.kind, .misuse)
    }

    func testUnsupported() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        let error = await failure { try tunnel.selectOutbound(group: "group", tag: "tag") }
        XCTAssertEqual(error.kind, .unsupported)
        assertShown(error, 14)
    }

    /// The kinds that no test can bring the library to: read from the bytes in which it would send them.
    func testKindsThatTheLibraryDoesNotMakeHere() async throws {
        let expected: [(ErrorKind, VMessError.Kind, Int)] = [
            (.internal, .internal, 15), (.unknown(code: 99), .unknown(code: 99), 99),
            (.serverUnreachable(stage: .unknown(name: "fly")), .serverUnreachable(stage: .unknown(name: "fly")), 2),
        ]
        for (sent, kind, code) in expected {
            let failed = TunnelError.Failed(kind: sent, text: "text", hint: "hint", reason: "reason", path: "")
            let bytes = FfiConverterTypeTunnelError_lower(failed)
            let error = await failure { try translated { throw try FfiConverterTypeTunnelError_lift(bytes) } }
            XCTAssertEqual(error, VMessError(kind, "text", hint: "hint", reason: "reason"))
            assertShown(error, code)
        }
    }

    /// What the system hands from the extension to the app is the same error again.
    func testErrorsPassFromProcessToProcess() {
        let kinds: [VMessError.Kind] = [
            .configInvalid, .serverUnreachable(stage: .tls), .tlsFailed, .authRejected, .clockSkew(seconds: -90),
            .protectFailed, .tunIo, .tunGone, .resourceLimit(what: "memory"), .alreadyRunning, .stopped,
            .timeout(what: "check"), .misuse, .unsupported, .internal, .notPermitted, .hostFailed, .notRunning,
            .unknown(code: 77),
        ]
        for kind in kinds {
            let error = VMessError(kind, "what", hint: "do", reason: "why", path: "inbounds[0]")
            let passed = NSError(domain: VMessError.errorDomain, code: error.errorCode, userInfo: error.errorUserInfo)
            XCTAssertEqual(VMessError(passedOn: passed), error)
        }
        XCTAssertNil(VMessError(passedOn: NSError(domain: "other", code: 1)))
    }

    func testAnErrorIsLocalized() {
        let error = VMessError(.misuse, "what", hint: "do", reason: "why")
        XCTAssertEqual(error.localizedDescription, "what")
        XCTAssertEqual(error.recoverySuggestion, "do")
        XCTAssertEqual(error.failureReason, "why")
        XCTAssertEqual("\(error)", "misuse: what (why); do")
    }

    func testShareLinks() async throws {
        let bad = await failure { try VMess.parseShareLink("vmess://?") }
        XCTAssertEqual(bad.kind, .configInvalid)
        let link = try VMess.toShareLink(Configs.vmess(443))
        XCTAssertTrue(try VMess.parseShareLink(link).contains(Configs.id))
        XCTAssertFalse(VMess.validateConfig(Configs.vmess(443)).contains { $0.severity == .error })
        XCTAssertTrue(try VMess.formatConfig(Configs.quiet).contains("blackhole"))
        XCTAssertFalse(VMess.version.isEmpty)
    }

    /// What a check of the path to the server says.
    private func checked(_ config: String, _ platform: TestPlatform = TestPlatform()) async throws -> VMessError {
        let tunnel = try Tunnel(config: config, platform: platform)
        try await tunnel.start()
        let error = await failure { try await tunnel.check() }
        try await tunnel.stop()
        return error
    }

    private func assertShown(_ error: VMessError, _ code: Int, line: UInt = #line) {
        XCTAssertEqual(error.code, code, line: line)
        XCTAssertEqual(error.localizedDescription, error.text, line: line)
        XCTAssertFalse(error.text.isEmpty, line: line)
        print(error)
    }
}
