import Foundation
import NetworkExtension
import Security
import XCTest

@testable import VMessKitVPN

/// The app's half, against stub modules of the system's.
final class ManagerTests: XCTestCase, @unchecked Sendable {
    private static let extensionId = "org.example.app.tunnel"
    private static let config = #"{"inbounds": [{"protocol": "tun"}], "outbounds": [{"protocol": "freedom"}]}"#

    override func setUp() async throws {
        NETunnelProviderManager.installed = []
        NETunnelProviderManager.makeExtension = nil
        NETunnelProviderManager.refusal = nil
        try ConfigStore().remove()
    }

    private func profile(_ onDemand: VpnProfile.OnDemand = .off) -> VpnProfile {
        VpnProfile(name: "Test", extensionIdentifier: ManagerTests.extensionId, onDemand: onDemand)
    }

    private var configuration: VpnConfiguration {
        VpnConfiguration(json: ManagerTests.config, bypassLan: true, remoteAddress: "vpn.example.org")
    }

    @MainActor func testInstallsWhatTheProfileSays() async throws {
        var profile = profile(.always(exceptSsids: ["Home"]))
        (profile.includeAllNetworks, profile.enforceRoutes, profile.excludeLocalNetworks) = (true, true, false)
        let vpn = VMessVPNManager(profile)
        XCTAssertEqual(vpn.status, .invalid)
        try await vpn.install(configuration)
        let installed = try XCTUnwrap(NETunnelProviderManager.installed.first)
        let settings = try XCTUnwrap(installed.protocolConfiguration as? NETunnelProviderProtocol)
        XCTAssertEqual(installed.localizedDescription, "Test")
        XCTAssertTrue(installed.isEnabled)
        XCTAssertEqual(settings.providerBundleIdentifier, ManagerTests.extensionId)
        XCTAssertEqual(settings.serverAddress, "vpn.example.org")
        XCTAssertTrue(settings.includeAllNetworks)
        XCTAssertTrue(settings.enforceRoutes)
        XCTAssertFalse(settings.excludeLocalNetworks)
        XCTAssertFalse("\(settings.providerConfiguration ?? [:])".contains("inbounds"), "it lies in the keychain")
        XCTAssertEqual(try ConfigStore().load(), configuration)
        XCTAssertEqual(vpn.status, .disconnected)
    }

    @MainActor func testAnotherInstallBringsTheSameProfileUpToDate() async throws {
        let other = NETunnelProviderManager()
        other.protocolConfiguration = NETunnelProviderProtocol()
        NETunnelProviderManager.installed = [other]
        try await VMessVPNManager(profile()).install(configuration)
        let again = VMessVPNManager(profile(.wiFi))
        try await again.install(configuration)
        XCTAssertEqual(NETunnelProviderManager.installed.count, 2, "another profile of the app's is left alone")
        XCTAssertTrue(NETunnelProviderManager.installed[1].isOnDemandEnabled)
        let found = try await VMessVPNManager(profile()).load()
        XCTAssertTrue(found)
        try await again.remove()
        XCTAssertEqual(NETunnelProviderManager.installed, [other])
        XCTAssertThrowsError(try ConfigStore().load())
        XCTAssertEqual(again.status, .invalid)
    }

    @MainActor func testOnDemandRules() async throws {
        let vpn = VMessVPNManager(profile())
        try await vpn.setOnDemand(.wiFi)
        XCTAssertTrue(NETunnelProviderManager.installed.isEmpty, "it is kept for the install")
        try await vpn.install(configuration)
        let manager = NETunnelProviderManager.installed[0]
        XCTAssertTrue(vpn.isOnDemand)
        XCTAssertEqual(rules(manager), ["connect 2 []", "disconnect 0 []"])
        try await vpn.setOnDemand(.cellular)
        XCTAssertEqual(rules(manager), ["connect 3 []", "disconnect 0 []"])
        try await vpn.setOnDemand(.always(exceptSsids: ["Home", "Work"]))
        XCTAssertEqual(rules(manager), [#"disconnect 2 ["Home", "Work"]"#, "connect 0 []"])
        try await vpn.setOnDemand(.always(exceptSsids: []))
        XCTAssertEqual(rules(manager), ["connect 0 []"])
        try await vpn.start()
        try await vpn.stop()
        XCTAssertFalse(vpn.isOnDemand, "else the system would start it again")
        try await vpn.start()
        XCTAssertTrue(vpn.isOnDemand)
        try await vpn.setOnDemand(.off)
        XCTAssertEqual(rules(manager), [])
        XCTAssertFalse(vpn.isOnDemand)
    }

    private func rules(_ manager: NETunnelProviderManager) -> [String] {
        (manager.onDemandRules ?? []).map {
            let kind = $0 is NEOnDemandRuleConnect ? "connect" : "disconnect"
            return "\(kind) \($0.interfaceTypeMatch.rawValue) \($0.ssidMatch ?? [])"
        }
    }

    @MainActor func testWhatIsNotValidIsNotInstalled() async throws {
        let error = await failure { try await VMessVPNManager(self.profile()).install(VpnConfiguration(json: "{")) }
        XCTAssertEqual(error.kind, .configInvalid)
        XCTAssertTrue(NETunnelProviderManager.installed.isEmpty)
        NETunnelProviderManager.refusal = NSError(domain: "NEVPNErrorDomain", code: 5)
        let refused = await failure { try await VMessVPNManager(self.profile()).install(self.configuration) }
        XCTAssertEqual(refused.kind, .notPermitted)
        let missing = await failure { try await VMessVPNManager(self.profile()).start() }
        XCTAssertEqual(missing.kind, .notPermitted)
    }

    @MainActor func testAnExtensionThatDoesNotRunIsATypedAnswer() async throws {
        let vpn = VMessVPNManager(profile())
        try await vpn.install(configuration)
        let session = NETunnelProviderManager.installed[0].connection as? NETunnelProviderSession
        let asleep = await failure { try await vpn.send(.status) }
        XCTAssertEqual(asleep.kind, .notRunning)
        session?.answer = { _ in nil }
        let dead = await failure { try await vpn.send(.status) }
        XCTAssertEqual(dead.kind, .notRunning, "it has ended meanwhile")
        session?.answer = { _ in Data(#"{"version": 9, "body": 1}"#.utf8) }
        let newer = await failure { try await vpn.send(.status) }
        XCTAssertEqual(newer.kind, .unsupported)
        session?.answer = { _ in Data(count: AppMessages.limit + 1) }
        let long = await failure { try await vpn.send(.status) }
        XCTAssertEqual(long.kind, .resourceLimit(what: "message size"))
        session?.answer = { _ in
            try? AppMessages.encode(AppResponse.failed(ErrorMessage(VMessError(.notRunning, "no"))))
        }
        let failed = await failure { try await vpn.send(.reload) }
        XCTAssertEqual(failed.kind, .notRunning)
        session?.answer = { _ in try? AppMessages.encode(AppResponse.done) }
        let done = try await vpn.send(.select(group: "g", tag: "t"))
        XCTAssertEqual(done, .done)
    }

    @MainActor func testTheLastErrorIsToldOrNoted() async throws {
        let vpn = VMessVPNManager(profile())
        try await vpn.install(configuration)
        let none = await vpn.lastError()
        XCTAssertNil(none)
        let connection = NETunnelProviderManager.installed[0].connection
        let ours = VMessError(.clockSkew(seconds: 90), "the clock is fast", hint: "set it")
        connection.lastDisconnectError = ours as NSError
        let told = await vpn.lastError()
        XCTAssertEqual(told, ours)
        connection.lastDisconnectError = NSError(domain: "NEVPNConnectionErrorDomain", code: 14)
        let foreign = await vpn.lastError()
        XCTAssertEqual(foreign?.kind, .tunGone)
        XCTAssertTrue(foreign?.reason.contains("14") ?? false, "\(String(describing: foreign))")
        try ConfigStore().note(ours)
        let noted = await vpn.lastError()
        XCTAssertEqual(noted, ours, "the extension knows more than the system")
        connection.lastDisconnectError = nil
        try await vpn.start()
        let fresh = await vpn.lastError()
        XCTAssertNil(fresh, "it is not of this start")
    }

    @MainActor func testTheStatusIsStreamed() async throws {
        let vpn = VMessVPNManager(profile())
        try await vpn.install(configuration)
        let connection = NETunnelProviderManager.installed[0].connection
        let streams = [vpn.statuses, vpn.statuses]
        try await vpn.start()
        for stream in streams {
            for await status in stream where status == .connecting { break }
        }
        let stream = vpn.statuses
        connection.status = .connected
        for await status in stream where status == .connected { break }
        XCTAssertEqual(vpn.status, .connected)
    }

    func testTheKeychainItemIsTheProfilesOwn() throws {
        let one = ConfigStore(service: "one", accessGroup: "TEAM.shared")
        let two = ConfigStore(service: "two", accessGroup: "TEAM.shared")
        defer { try? one.remove() }
        try one.save(configuration)
        XCTAssertThrowsError(try two.load()) { XCTAssertEqual(($0 as? VMessError)?.kind, .notPermitted) }
        XCTAssertEqual(ConfigStore(one.providerConfiguration), one)
        XCTAssertEqual(try ConfigStore(one.providerConfiguration).load(), configuration)
        var changed = configuration
        changed.matchDomains = ["example.org"]
        changed.options = TunnelOptions(memoryLimitBytes: 20_000_000)
        try one.save(changed)
        XCTAssertEqual(try one.load(), changed)
        try one.remove()
        try one.remove()
        XCTAssertThrowsError(try one.load())
    }

    /// What a call throws, which it must.
    @MainActor private func failure<Answer>(
        line: UInt = #line, _ call: @MainActor () async throws -> Answer
    ) async -> VMessError {
        do {
            _ = try await call()
            XCTFail("it answered", line: line)
        } catch let error as VMessError {
            return error
        } catch { XCTFail("it threw \(error)", line: line) }
        return VMessError(.unknown(code: 0), "")
    }
}
