import Foundation
import XCTest

@testable import VMessKit

final class PrefixTests: XCTestCase {
    func testReadsNetworksAndAddresses() throws {
        XCTAssertEqual(try Prefix("10.1.2.3/8").network.description, "10.0.0.0/8")
        XCTAssertEqual(try Prefix("fd12:3456::1/8").network, try Prefix("fd00::/8"))
        XCTAssertEqual(try Prefix("192.0.2.1").length, 32)
        XCTAssertEqual(try Prefix("172.19.0.1/30").maskText, "255.255.255.252")
        XCTAssertEqual(try Prefix("10.0.0.0/0").maskText, "0.0.0.0")
        for text in ["", "example.org", "1.2.3", "1.2.3.4/33", "1.2.3.4/x", "::/129", "300.1.1.1", "1.2.3.4/-1"] {
            XCTAssertThrowsError(try Prefix(text), text) { XCTAssertEqual(($0 as? VMessError)?.kind, .misuse) }
        }
    }

    func testKnowsWhatIsInIt() throws {
        let net = try Prefix("172.16.0.0/12")
        XCTAssertTrue(net.contains(try Prefix("172.31.255.255")))
        XCTAssertFalse(net.contains(try Prefix("172.32.0.0")))
        XCTAssertFalse(net.contains(try Prefix("172.0.0.0/8")))
        XCTAssertTrue(net.overlaps(try Prefix("172.0.0.0/8")))
        XCTAssertFalse(try Prefix("::/0").contains(net), "families are apart")
    }
}

final class TunPlanTests: XCTestCase {
    private func plan(_ configuration: VpnConfiguration, tun: String = "{}") throws -> TunPlan {
        let tunnel = try Tunnel(config: Configs.redirected(9, settings: tun))
        return try TunPlan(XCTUnwrap(tunnel.tunSettings), configuration)
    }

    func testTheConfigIsTheOnlySource() throws {
        let plan = try plan(VpnConfiguration(json: "{}"), tun: #"{"mtu": 1400}"#)
        XCTAssertEqual(plan.addresses.map(\.description), ["172.19.0.1/30", "fd19::1/126"])
        XCTAssertEqual(plan.dns, ["172.19.0.2"])
        XCTAssertEqual(plan.mtu, 1400)
        XCTAssertTrue(plan.routes.contains(try Prefix("0.0.0.0/0")))
        XCTAssertTrue(plan.routes.contains(try Prefix("::/0")))
        XCTAssertTrue(plan.excluded.isEmpty)
        XCTAssertEqual(plan.matchDomains, [""], "an empty list would leave the DNS servers unused")
    }

    func testTheLanIsLeftOutAndOurOwnNetworkIsNot() throws {
        let plan = try plan(VpnConfiguration(json: "{}", bypassLan: true, matchDomains: ["example.org"]))
        XCTAssertTrue(plan.excluded.contains(try Prefix("172.16.0.0/12")))
        XCTAssertTrue(plan.routes.contains(try Prefix("172.19.0.2/32")), "the DNS server inside is none of the LAN's")
        XCTAssertEqual(plan.matchDomains, ["example.org"])
    }

    func testOnlyFamiliesThatTheDeviceHasAreRouted() throws {
        let plan = try plan(
            VpnConfiguration(json: "{}", bypassLan: true), tun: #"{"addresses": ["172.19.0.1/30"]}"#)
        XCTAssertFalse((plan.routes + plan.excluded).contains(where: \.isV6), "\(plan)")
    }

    func testAConfigurationTellsNoSecret() {
        XCTAssertFalse("\(VpnConfiguration(json: Configs.vmess(1)))".contains(Configs.id))
        XCTAssertFalse(String(reflecting: VpnConfiguration(json: Configs.vmess(1))).contains(Configs.id))
    }
}

final class NetworkTrackerTests: XCTestCase {
    private let tracker = NetworkTracker()

    private func facts(
        _ interfaces: [PathFacts.Interface], satisfied: Bool = true, expensive: Bool = false
    ) -> PathFacts {
        PathFacts(isSatisfied: satisfied, interfaces: interfaces, hasV4: true, hasV6: false, isExpensive: expensive)
    }

    private let wifi = PathFacts.Interface(name: "en0", index: 4, addresses: ["192.0.2.7", "fe80::1", "127.0.0.1"])
    private let cell = PathFacts.Interface(name: "pdp_ip0", index: 6, addresses: ["198.51.100.9"])
    private let utun = PathFacts.Interface(name: "utun3", index: 17, addresses: ["172.19.0.1"])

    func testTheFirstSnapshotIsNoChange() {
        XCTAssertNil(tracker.network)
        XCTAssertFalse(tracker.update(facts([wifi])))
        XCTAssertEqual(tracker.network?.addresses, ["192.0.2.7"])
        XCTAssertEqual(tracker.network?.index, 4)
        XCTAssertFalse(tracker.update(facts([wifi])), "the same again")
    }

    func testAFirstSnapshotWithoutANetworkIsTold() {
        XCTAssertTrue(tracker.update(facts([], satisfied: false)))
        XCTAssertNil(tracker.network)
        XCTAssertFalse(tracker.update(facts([wifi], satisfied: false)))
        XCTAssertTrue(tracker.update(facts([wifi])))
    }

    func testOurOwnDeviceIsIgnored() {
        tracker.update(facts([wifi]))
        let before = tracker.network
        XCTAssertFalse(tracker.update(facts([utun, wifi])), "its coming up")
        XCTAssertFalse(tracker.update(facts([wifi, utun])), "its place in the list")
        XCTAssertFalse(tracker.update(facts([wifi])), "its going down")
        XCTAssertEqual(tracker.network, before)
    }

    func testAnotherInterfaceOrAddressIsAnotherNetwork() {
        tracker.update(facts([wifi, cell]))
        let first = tracker.network?.id
        XCTAssertTrue(tracker.update(facts([cell], expensive: true)))
        XCTAssertNotEqual(tracker.network?.id, first)
        XCTAssertEqual(tracker.network?.metered, true)
        XCTAssertTrue(tracker.update(facts([wifi, cell])))
        XCTAssertEqual(tracker.network?.id, first, "the same network has the same id")
        let moved = PathFacts.Interface(name: "en0", index: 4, addresses: ["203.0.113.7"])
        XCTAssertTrue(tracker.update(facts([moved, cell])))
        XCTAssertNotEqual(tracker.network?.id, first)
    }

    func testTheOrderOfAddressesIsNone() {
        let one = PathFacts.Interface(name: "en0", index: 4, addresses: ["192.0.2.7", "2001:db8::7"])
        let two = PathFacts.Interface(name: "en0", index: 4, addresses: ["2001:db8::7", "192.0.2.7"])
        tracker.update(facts([one]))
        XCTAssertFalse(tracker.update(facts([two])))
    }

    func testTheLibraryTakesWhatIsTracked() throws {
        tracker.update(facts([wifi]))
        let tunnel = try Tunnel(config: Configs.quiet)
        try tunnel.networkChanged(tracker.network)
        try tunnel.networkChanged(nil)
    }
}

final class UtunTests: XCTestCase {
    /// A `sockaddr_ctl` of a kernel control.
    private static func address(_ control: UInt32, family: UInt8 = 32) -> [UInt8] {
        [32, family, 2, 0] + withUnsafeBytes(of: control) { Array($0) } + [UInt8](repeating: 0, count: 24)
    }

    private func kernel(_ peers: [Int32: [UInt8]], control: UInt32 = 7) -> Utun.Kernel {
        Utun.Kernel(
            peer: { peers[$0] },
            control: { fd, name in name == "com.apple.net.utun_control" && peers[fd] != nil ? control : nil })
    }

    func testFindsTheDescriptorOfTheControl() {
        let peers: [Int32: [UInt8]] = [
            3: [16, 2, 0, 80, 192, 0, 2, 1], 5: UtunTests.address(9), 8: UtunTests.address(7), 9: UtunTests.address(7),
        ]
        XCTAssertEqual(Utun.find(kernel(peers)), 8, "no internet socket, and no other control")
    }

    func testFindsNoneWhereThereIsNone() {
        XCTAssertNil(Utun.find(kernel([:])))
        XCTAssertNil(Utun.find(kernel([4: UtunTests.address(7, family: 1), 5: [32, 32], 6: []])))
        XCTAssertNil(Utun.find(kernel([4: UtunTests.address(7)], control: 8)))
        XCTAssertNil(Utun.find(), "Linux has none")
    }
}

final class SmallPartsTests: XCTestCase {
    func testTheNewestLinesAreKeptAndNumbered() {
        let buffer = LogBuffer(capacity: 3)
        let line: (String) -> LogLine = { LogLine(level: .info, unixMillis: 0, text: $0) }
        buffer.add([line("a"), line("b")])
        buffer.add([line("c"), line("d")])
        XCTAssertEqual(buffer.entries().map(\.line.text), ["b", "c", "d"])
        XCTAssertEqual(buffer.entries(since: 3).map(\.number), [4])
        XCTAssertTrue(buffer.entries(since: 4).isEmpty)
        XCTAssertEqual(buffer.entries(since: 99).count, 3, "a number of an extension that has been restarted since")
    }

    func testEveryReaderOfAHubHasAllInOneOrder() async {
        let hub = EventHub<Int>(capacity: 10_000)
        let streams = (0..<3).map { _ in hub.stream() }
        await withTaskGroup(of: Void.self) { group in
            for part in 0..<4 {
                group.addTask { for i in 0..<500 { hub.send(part * 1000 + i) } }
            }
        }
        hub.finish()
        var all: [[Int]] = []
        for stream in streams { all.append(await stream.reduce(into: []) { $0.append($1) }) }
        XCTAssertEqual(all[0].count, 2000)
        XCTAssertEqual(all[0], all[1])
        XCTAssertEqual(all[0], all[2])
        let late = await hub.stream().reduce(into: []) { $0.append($1) }
        XCTAssertTrue(late.isEmpty)
    }

    func testAReaderThatGoesIsForgotten() async {
        let hub = EventHub<Int>(initial: 1, capacity: 4)
        let task = Task { await hub.stream().first { $0 == 3 } }
        await eventually {
            hub.send(2)
            hub.send(3)
            return true
        }
        _ = await task.value
        let values = Task { () -> [Int] in
            var taken: [Int] = []
            for await value in hub.stream() {
                taken.append(value)
                if taken.count == 1 { break }
            }
            return taken
        }
        let taken = await values.value
        XCTAssertEqual(taken, [3], "the newest first")
    }

    func testNamesAreResolvedAsTheSystemDoes() throws {
        XCTAssertTrue(try SystemResolver.resolve("localhost").contains { $0 == "127.0.0.1" || $0 == "::1" })
        XCTAssertThrowsError(try SystemResolver.resolve("no such name.invalid")) {
            XCTAssertEqual(($0 as? VMessError)?.kind, .serverUnreachable(stage: .resolve))
        }
    }
}
