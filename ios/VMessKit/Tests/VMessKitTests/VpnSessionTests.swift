import Foundation
import XCTest

@testable import VMessKit

/// A phone whose tun devices are socket pairs.
private final class FakeHost: VpnHost, @unchecked Sendable {
    final class Device: TunDevice, @unchecked Sendable {
        let plan: TunPlan
        let pair = TunPair()
        let framing = Framing.rawIp
        private let isOpen = Locked(true)

        init(_ plan: TunPlan) { self.plan = plan }

        var fd: Int32 { pair.device }
        var isClosed: Bool { isOpen.withLock { !$0 } }

        func close() {
            let wasOpen = isOpen.withLock { open in
                defer { open = false }
                return open
            }
            if wasOpen { Glibc.close(pair.device) }
        }
    }

    struct Seen {
        var devices: [Device] = []
        var applied: [TunPlan] = []
        var reassertions: [Bool] = []
        var logs: [String] = []
        var ends: [VMessError] = []
        var refusal: VMessError?
    }

    let seen = Locked(Seen())
    private let asked: Locked<@Sendable () async throws -> VpnConfiguration>

    init(_ asked: @escaping @Sendable () async throws -> VpnConfiguration) { self.asked = Locked(asked) }

    func ask(_ new: @escaping @Sendable () async throws -> VpnConfiguration) { asked.withLock { $0 = new } }

    func configuration() async throws -> VpnConfiguration { try await asked.withLock { $0 }() }

    func apply(_ plan: TunPlan) async throws {
        try seen.withLock { seen in
            if let refusal = seen.refusal { throw refusal }
            seen.applied.append(plan)
        }
    }

    func device(_ plan: TunPlan) throws -> any TunDevice {
        let device = Device(plan)
        seen.withLock { $0.devices.append(device) }
        return device
    }

    func reassert(_ isReasserting: Bool) { seen.withLock { $0.reassertions.append(isReasserting) } }

    func log(_ level: LogLevel, _ text: String) { seen.withLock { $0.logs.append(text) } }

    func ended(_ error: VMessError) { seen.withLock { $0.ends.append(error) } }
}

final class VpnSessionTests: XCTestCase {
    private let tracker = NetworkTracker()
    private let payload = [UInt8](repeating: 7, count: 100)

    private func session(_ json: String) -> (FakeHost, VpnSession) {
        let host = FakeHost { VpnConfiguration(json: json) }
        return (host, VpnSession(host: host, tracker: tracker))
    }

    private func pings(_ device: FakeHost.Device) -> Bool {
        device.pair.send(Packets.ping(from: TcpClient.address, to: "192.0.2.9", payload: payload))
        return device.pair.receive { Packets.proto($0) == Packets.icmp } != nil
    }

    func testRunsStopsAndRunsAgain() async throws {
        let (host, session) = session(Configs.redirected(9))
        let states = session.states
        for round in 0..<3 {
            try await session.start()
            XCTAssertTrue(session.isActive)
            let second = await failure { try await session.start() }
            XCTAssertEqual(second.kind, .alreadyRunning)
            XCTAssertTrue(pings(host.seen.withLock { $0.devices[round] }))
            await session.stop()
            XCTAssertEqual(session.current, .stopped(nil))
            XCTAssertNil(session.tunnel)
            XCTAssertFalse(session.isActive)
        }
        XCTAssertTrue(host.seen.withLock { $0.devices.allSatisfy(\.isClosed) })
        XCTAssertTrue(host.seen.withLock { $0.ends.isEmpty }, "a stop that was asked for is no end")
        let first = await first(in: states) { $0 != .idle }
        XCTAssertNotNil(first)
    }

    func testAStopDuringAStartLeavesNothing() async throws {
        let (host, session) = session(Configs.redirected(9))
        for round in 0..<30 {
            let start = Task { try await session.start() }
            try await Task.sleep(nanoseconds: UInt64(round % 10) * 500_000)
            if round % 3 == 0 { start.cancel() } else { await session.stop() }
            if case .failure(let error) = await start.result {
                XCTAssertEqual((error as? VMessError)?.kind, .stopped, "\(error)")
            }
            await session.stop()
            await eventually { session.tunnel == nil && !session.isActive }
        }
        let devices = host.seen.withLock { $0.devices }
        for device in devices { XCTAssertTrue(device.pair.deviceCloses()) }
        XCTAssertNil(session.lastError)
    }

    func testWhatFailsAStartIsThrownAndKept() async throws {
        let (host, session) = session(#"{"outbounds": [{"protocol": "blackhole"}]}"#)
        let untunnelled = await failure { try await session.start() }
        XCTAssertEqual(untunnelled.kind, .configInvalid)
        XCTAssertTrue(untunnelled.hint.contains("tun"))
        XCTAssertEqual(session.lastError, untunnelled)
        XCTAssertEqual(session.current, .stopped(untunnelled))
        host.ask { throw Refusal(description: "the disk is gone") }
        let failed = await failure { try await session.start() }
        XCTAssertEqual(failed.kind, .hostFailed)
        XCTAssertTrue(failed.reason.contains("the disk is gone"))
        host.ask { VpnConfiguration(json: Configs.redirected(9)) }
        host.seen.withLock { $0.refusal = VMessError(.notPermitted, "no") }
        let refused = await failure { try await session.start() }
        XCTAssertEqual(refused.kind, .notPermitted)
        host.seen.withLock { $0.refusal = nil }
        try await session.start()
        XCTAssertNil(session.lastError)
        await session.stop()
    }

    func testADeviceThatGoesEndsTheRun() async throws {
        let (host, session) = session(Configs.redirected(9))
        try await session.start()
        host.seen.withLock { $0.devices[0] }.pair.close()
        await eventually { host.seen.withLock { !$0.ends.isEmpty } }
        XCTAssertEqual(host.seen.withLock { $0.ends.map(\.kind) }, [.tunGone])
        XCTAssertEqual(session.lastError?.kind, .tunGone)
        XCTAssertTrue(host.seen.withLock { $0.devices[0].isClosed })
        try await session.start()
        await session.stop()
    }

    func testReassertingFollowsTheNetwork() async throws {
        let (host, session) = session(Configs.vmess(closedPort(), tun: true))
        let wifi = PathFacts.Interface(name: "en0", index: 4, addresses: ["192.0.2.7"])
        let path: (Bool) -> PathFacts = {
            PathFacts(isSatisfied: $0, interfaces: [wifi], hasV4: true, hasV6: false, isExpensive: false)
        }
        tracker.update(path(true))
        try await session.start()
        if tracker.update(path(false)) { session.networkChanged() }
        await eventually { session.current == .noNetwork }
        await eventually { host.seen.withLock { $0.reassertions == [true] } }
        if tracker.update(path(true)) { session.networkChanged() }
        await eventually { host.seen.withLock { $0.reassertions == [true, false] } }
        XCTAssertNotEqual(session.current, .noNetwork)
        await session.stop()
    }

    func testSleepAndMemoryAreLegalAtAnyTime() async throws {
        let (host, session) = session(Configs.redirected(9))
        session.sleep(true)
        session.memoryPressure(.critical)
        session.networkChanged()
        try await session.start()
        XCTAssertTrue(pings(host.seen.withLock { $0.devices[0] }), "a tunnel that sleeps refuses no traffic")
        session.sleep(false)
        for level in [MemoryPressure.low, .critical, .normal] { session.memoryPressure(level) }
        XCTAssertTrue(pings(host.seen.withLock { $0.devices[0] }))
        await session.stop()
        session.sleep(true)
        session.memoryPressure(.normal)
    }

    func testAReloadSwapsTheDeviceUnderTheFlows() async throws {
        let (host, session) = session(Configs.redirected(9))
        let before = await failure { try await session.reload() }
        XCTAssertEqual(before.kind, .notRunning)
        try await session.start()
        try await session.reload()
        XCTAssertEqual(host.seen.withLock { $0.devices.count }, 1, "the same again changes nothing")
        host.ask { VpnConfiguration(json: Configs.redirected(9, settings: #"{"mtu": 1400}"#), bypassLan: true) }
        try await session.reload()
        let devices = host.seen.withLock { $0.devices }
        XCTAssertEqual(devices.map(\.plan.mtu), [16000, 1400])
        XCTAssertTrue(devices[0].isClosed)
        XCTAssertTrue(pings(devices[1]))
        XCTAssertEqual(host.seen.withLock { $0.reassertions }, [true, false])
        await session.stop()
        XCTAssertTrue(devices[1].isClosed)
    }

    func testABrokenReloadLeavesAllAsItIs() async throws {
        let (host, session) = session(Configs.redirected(9))
        try await session.start()
        host.ask { VpnConfiguration(json: "{") }
        let error = await failure { try await session.reload() }
        XCTAssertEqual(error.kind, .configInvalid)
        XCTAssertEqual(session.lastError, error)
        XCTAssertTrue(pings(host.seen.withLock { $0.devices[0] }))
        XCTAssertFalse(host.seen.withLock { $0.devices[0].isClosed })
        await session.stop()
    }
}
