import Foundation
import VMessKit
import XCTest

final class LifecycleTests: XCTestCase {
    func testStartsTellsAndStops() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        XCTAssertEqual(tunnel.state, .idle)
        let events = tunnel.events
        try await tunnel.start()
        let connected = await first(in: tunnel.states) { $0 == .connected }
        XCTAssertEqual(connected, .connected)
        XCTAssertEqual(tunnel.status.state, .connected)
        let connections = try await tunnel.connections()
        XCTAssertTrue(connections.isEmpty)
        let closed = try await tunnel.closeConnection(id: 0)
        XCTAssertFalse(closed)
        let report = try await tunnel.reload(config: Configs.quiet)
        XCTAssertFalse(report.tunChanged)
        try await tunnel.stop()
        let seen = await states(events)
        XCTAssertEqual(seen, [.starting, .connected, .stopping, .stopped(nil)])
        XCTAssertEqual(tunnel.state, .stopped(nil))
        try await tunnel.stop()
        tunnel.requestStop()
    }

    func testEveryReaderSeesTheSameEvents() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        let streams = (0..<3).map { _ in tunnel.events }
        try await tunnel.start()
        try await tunnel.stop()
        var all: [[TunnelEvent]] = []
        for stream in streams { all.append(await stream.reduce(into: []) { $0.append($1) }) }
        XCTAssertFalse(all[0].isEmpty)
        XCTAssertEqual(all[0], all[1])
        XCTAssertEqual(all[0], all[2])
    }

    func testAReaderThatHangsKeepsNoStateBack() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        let hung = tunnel.events
        try await tunnel.start()
        for i in 0..<UInt64(2 * Tunnel.eventBuffer) { try tunnel.networkChanged(i % 2 == 0 ? nil : network(i)) }
        try await tunnel.stop()
        let last = await first(in: tunnel.states, where: \.isStopped)
        XCTAssertEqual(last, .stopped(nil))
        let events = await hung.reduce(into: []) { $0.append($1) }
        XCTAssertEqual(events.last, .stateChanged(.stopped(nil)))
        XCTAssertLessThanOrEqual(events.count, Tunnel.eventBuffer)
    }

    func testStreamsOfAnEndedTunnelEnd() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        try await tunnel.stop()
        await eventually { tunnel.state == .stopped(nil) }
        let states = await tunnel.states.reduce(into: []) { $0.append($1) }
        XCTAssertEqual(states, [.stopped(nil)])
        let events = await tunnel.events.reduce(into: []) { $0.append($1) }
        XCTAssertTrue(events.isEmpty)
    }

    func testACancelledStartIsAStop() async throws {
        for round in 0..<20 {
            let pair = TunPair()
            let tunnel = try Tunnel(config: Configs.redirected(9))
            let handle = pair.handle()
            let start = Task { try await tunnel.start(tun: handle) }
            try await Task.sleep(nanoseconds: UInt64(round % 4) * 1_000_000)
            start.cancel()
            let result = await start.result
            try await tunnel.stop()
            XCTAssertEqual(tunnel.status.state, .stopped(nil))
            // A start that had returned before it was cancelled is none that was cancelled.
            if case .failure(let error) = result { XCTAssertTrue(error is CancellationError, "\(error)") }
            XCTAssertTrue(pair.deviceCloses(), "the owned descriptor is closed, in round \(round)")
        }
    }

    func testAStartInACancelledTaskOwnsItsDescriptor() async throws {
        let pair = TunPair()
        let tunnel = try Tunnel(config: Configs.redirected(9))
        let handle = pair.handle()
        let start = Task {
            while !Task.isCancelled { await Task.yield() }
            try await tunnel.start(tun: handle)
        }
        start.cancel()
        let result = await start.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError) }
        XCTAssertTrue(pair.deviceCloses())
        await eventually { tunnel.state == .stopped(nil) }
    }

    func testStopsDuringAStart() async throws {
        for _ in 0..<20 {
            let tunnel = try Tunnel(config: Configs.quiet)
            let start = Task { try await tunnel.start() }
            tunnel.requestStop()
            if case .failure(let error) = await start.result {
                XCTAssertEqual((error as? VMessError)?.kind, .stopped)
            }
            await eventually { tunnel.state == .stopped(nil) }
        }
    }

    func testEveryOwnershipIsKept() async throws {
        for ownership in [FdOwnership.borrowed, .owned] {
            let pair = TunPair()
            let tunnel = try Tunnel(config: Configs.redirected(9))
            try await tunnel.start(tun: pair.handle(ownership))
            XCTAssertTrue(Process.isOpen(pair.device))
            try await tunnel.stop()
            XCTAssertEqual(Process.isOpen(pair.device), ownership == .borrowed)
            if ownership == .borrowed { close(pair.device) }
            XCTAssertTrue(pair.deviceCloses())
        }
    }

    func testARefusedStartClosesWhatItOwns() async throws {
        let stopped = try Tunnel(config: Configs.redirected(9))
        try await stopped.stop()
        let owned = TunPair()
        let error = await failure { try await stopped.start(tun: owned.handle()) }
        XCTAssertEqual(error.kind, .stopped)
        XCTAssertTrue(owned.deviceCloses())
        let lent = TunPair()
        _ = await failure { try await stopped.setTun(lent.handle(.borrowed)) }
        XCTAssertTrue(Process.isOpen(lent.device), "a borrowed one stays open")
        close(lent.device)
    }

    func testTwoTunnelsLiveSideBySide() async throws {
        let first = try Tunnel(config: Configs.quiet)
        let second = try Tunnel(config: Configs.quiet)
        try await first.start()
        try await second.start()
        try await first.stop()
        XCTAssertEqual(second.status.state, .connected)
        try await second.stop()
    }

    func testAThousandLivesLeaveNothingBehind() async throws {
        for _ in 0..<20 { try await live() }
        await eventually { Process.threads == 0 }
        let descriptors = Process.descriptors
        for _ in 0..<1000 { try await live() }
        await eventually { Process.threads == 0 && Process.descriptors <= descriptors + 8 }
    }

    func testAThousandCalls() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        try await tunnel.start()
        for _ in 0..<1000 {
            XCTAssertEqual(tunnel.status.state, .connected)
            XCTAssertEqual(tunnel.stats.dials, 0)
            _ = try await tunnel.connections()
        }
        try await tunnel.stop()
    }

    func testLettingGoEndsATunnel() async throws {
        let pair = TunPair()
        var tunnel: Tunnel? = try Tunnel(config: Configs.redirected(9))
        try await tunnel?.start(tun: pair.handle())
        let states = try XCTUnwrap(tunnel?.states)
        tunnel = nil
        let last = await first(in: states, where: \.isStopped)
        XCTAssertEqual(last, .stopped(nil))
        XCTAssertTrue(pair.deviceCloses())
    }

    func testThePlatformIsReleasedByTheStop() async throws {
        var platform: TestPlatform? = TestPlatform()
        let released = Released(platform)
        let tunnel = try Tunnel(config: Configs.quiet, platform: platform)
        platform = nil
        try await tunnel.start()
        XCTAssertFalse(released.isReleased)
        try await tunnel.stop()
        await eventually { released.isReleased }
    }

    func testARequestOfACallbackStops() async throws {
        let tunnel = LateTunnel()
        let platform = TestPlatform { _ in tunnel.value?.requestStop() }
        // It says nothing, so that nothing but the stop ends the check.
        let silent = TcpServer(TcpServer.swallow)
        let made = try Tunnel(config: Configs.vmess(silent.port), platform: platform)
        tunnel.value = made
        try await made.start()
        let error = await failure { try await made.check() }
        XCTAssertEqual(error.kind, .stopped)
        await eventually { made.state == .stopped(nil) }
        tunnel.value = nil
    }

    func testUsersOfAServer() async throws {
        let server = try Tunnel(config: Configs.server(closedPort(), redirect: 9))
        try await server.start()
        XCTAssertEqual(try server.users(inbound: "server").map(\.email), ["ann@example.com"])
        let bob = NewUser(id: UUID().uuidString, alterId: 0, level: 0, email: "bob@example.com")
        try server.addUser(inbound: "server", user: bob)
        XCTAssertEqual(try server.users(inbound: "server").count, 2)
        XCTAssertTrue(try server.removeUser(inbound: "server", email: "BOB@example.com"))
        XCTAssertFalse(try server.removeUser(inbound: "server", email: "bob@example.com"))
        let error = await failure { try server.users(inbound: "none") }
        XCTAssertEqual(error.kind, .misuse)
        try await server.stop()
    }

    private func live() async throws {
        let tunnel = try Tunnel(config: Configs.quiet)
        try await tunnel.start()
        try await tunnel.stop()
    }

    private func states(_ events: AsyncStream<TunnelEvent>) async -> [TunnelState] {
        await events.reduce(into: []) { states, event in
            if case .stateChanged(let state) = event { states.append(state) }
        }
    }
}

/// Tells whether an object is gone.
private final class Released: @unchecked Sendable {
    private weak var object: AnyObject?

    init(_ object: AnyObject?) { self.object = object }

    var isReleased: Bool { object == nil }
}

/// A tunnel that its own platform knows.
private final class LateTunnel: @unchecked Sendable {
    private let lock = NSLock()
    private var tunnel: Tunnel?

    var value: Tunnel? {
        get { lock.withLock { tunnel } }
        set { lock.withLock { tunnel = newValue } }
    }
}
