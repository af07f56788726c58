import Foundation
import NetworkExtension
import SwiftUI
import VMessKitVPN
import XCTest

@testable import Sample
@testable import SampleTunnel

/// The sample app against its own extension and the real library, in one process; the stub modules are the system.
final class SampleTests: XCTestCase, @unchecked Sendable {
    private let link = "vmess://b831381d-6324-4d53-ad4f-8cda48b30811@127.0.0.1:9?type=tcp#sample"

    override func setUp() async throws {
        NETunnelProviderManager.installed = []
        NETunnelProviderManager.refusal = nil
        NETunnelProviderManager.makeExtension = { PacketTunnelProvider() }
        try ConfigStore().remove()
    }

    override func tearDown() async throws {
        for manager in NETunnelProviderManager.installed { manager.connection.stopVPNTunnel() }
        NETunnelProviderManager.makeExtension = nil
    }

    @MainActor func testConnectsShowsRatesAndTheLogAndDisconnects() async throws {
        let model = VpnModel()
        model.link = link
        let screen = Screen(ContentView(model: model))
        XCTAssertTrue(screen.press("Connect"))
        XCTAssertFalse(screen.press("Connect"), "it waits for the system")
        await shows(model, "connecting")
        XCTAssertTrue(screen.texts.contains("Disconnect"))
        await shows(model, "up 0 KiB/s, down 0 KiB/s")
        XCTAssertTrue(screen.texts.contains { $0.contains("packets take the longer way") }, "\(screen.texts)")
        let settings = NETunnelProviderManager.installed.first?.protocolConfiguration as? NETunnelProviderProtocol
        XCTAssertEqual(settings?.providerBundleIdentifier?.hasSuffix(".tunnel"), true)
        XCTAssertFalse("\(settings?.providerConfiguration ?? [:])".contains("b831381d"), "the profile holds no id")
        XCTAssertTrue(screen.press("Disconnect"))
        await shows(model, "Disconnected")
        XCTAssertNil(model.problem)
    }

    @MainActor func testAnotherScreenFindsTheVpnAsItIs() async throws {
        let first = VpnModel()
        first.link = link
        XCTAssertTrue(Screen(ContentView(model: first)).press("Connect"))
        await shows(first, "connecting")
        let second = VpnModel()
        let following = Task { await second.follow() }
        await shows(second, "connecting")
        XCTAssertTrue(second.link.hasPrefix("vmess://"), second.link)
        following.cancel()
        await following.value
    }

    @MainActor func testABrokenLinkIsExplained() async {
        let model = VpnModel()
        model.link = "vmess://nonsense"
        let screen = Screen(ContentView(model: model))
        XCTAssertTrue(screen.press("Connect"))
        await shows(model, "What is wrong")
        XCTAssertEqual(model.problem?.kind, .configInvalid)
        XCTAssertTrue(NETunnelProviderManager.installed.isEmpty)
    }

    @MainActor func testAnEndIsExplained() async {
        NETunnelProviderManager.makeExtension = {
            let provider = PacketTunnelProvider()
            provider.refusal = NSError(domain: "NETunnelProviderErrorDomain", code: 1)
            return provider
        }
        let model = VpnModel()
        model.link = link
        let screen = Screen(ContentView(model: model))
        XCTAssertTrue(screen.press("Connect"))
        await shows(model, "the system did not take the tunnel's settings")
        XCTAssertEqual(model.problem?.kind, .notPermitted)
        XCTAssertTrue(screen.texts.contains("Connect"))
    }

    @MainActor func testARefusalOfTheUserIsExplained() async {
        NETunnelProviderManager.refusal = NSError(domain: "NEConfigurationErrorDomain", code: 10)
        let model = VpnModel()
        model.link = link
        XCTAssertTrue(Screen(ContentView(model: model)).press("Connect"))
        await shows(model, "What is wrong")
        XCTAssertEqual(model.problem?.kind, .notPermitted)
    }

    @MainActor func testOnDemandIsSwitchedWhileItRuns() async {
        let model = VpnModel()
        model.link = link
        let screen = Screen(ContentView(model: model))
        XCTAssertTrue(screen.press("Connect"))
        await shows(model, "connecting")
        let manager = NETunnelProviderManager.installed[0]
        XCTAssertFalse(manager.isOnDemandEnabled)
        XCTAssertTrue(screen.press("Connect on demand"))
        model.applyOnDemand()
        await eventually { manager.isOnDemandEnabled }
        XCTAssertTrue(manager.onDemandRules?.first is NEOnDemandRuleConnect)
        XCTAssertTrue(screen.press("Disconnect"))
        await shows(model, "Disconnected")
        XCTAssertFalse(manager.isOnDemandEnabled, "else it would start again at once")
    }

    func testRates() {
        let before: [String: UInt64] = ["uptimeMillis": 1000, "uplinkBytes": 0, "downlinkBytes": 1024]
        let now: [String: UInt64] = ["uptimeMillis": 3000, "uplinkBytes": 4096, "downlinkBytes": 3072]
        XCTAssertEqual(Rates(from: before, to: now)?.text, "up 2 KiB/s, down 1 KiB/s")
        XCTAssertNil(Rates(from: now, to: before), "another tunnel's")
        XCTAssertNil(Rates(from: [:], to: now))
    }

    /// Waits until the screen has the text.
    @MainActor private func shows(_ model: VpnModel, _ text: String, line: UInt = #line) async {
        let screen = Screen(ContentView(model: model))
        await eventually(line: line) {
            await model.refresh()
            return screen.texts.contains(text)
        }
    }

    @MainActor private func eventually(line: UInt = #line, _ holds: () async -> Bool) async {
        let deadline = Date().addingTimeInterval(20)
        while await !holds() {
            guard Date() < deadline else { return XCTFail("it never came to hold", line: line) }
            try? await Task.sleep(nanoseconds: 20_000_000)
        }
    }
}
