import Foundation
import NetworkExtension
import SwiftUI
import VMessKitVPN

/// What the screen shows, and what its buttons do. The VPN goes on without it.
@MainActor
final class VpnModel: ObservableObject {
    /// A share link, or a whole config in JSON.
    @Published var link = ""
    /// Whether the system starts the VPN by itself.
    @Published var isOnDemand = false
    /// Whether it is on, or about to be.
    @Published private(set) var isOn = false
    /// Whether an answer of the system's is waited for.
    @Published private(set) var isBusy = false
    /// How the VPN is, for a person.
    @Published private(set) var state = "Disconnected"
    @Published private(set) var rates: Rates?
    /// What is wrong, or why it has ended the last time.
    @Published private(set) var problem: VMessError?
    /// The newest log lines, oldest first.
    @Published private(set) var lines: [LogMessage] = []

    private static let shownLines = 200
    private let store = ConfigStore()
    private let vpn: VMessVPNManager
    private var counters: [String: UInt64] = [:]
    /// Whether a run has begun whose end has not been looked at; it may be over before the first look.
    private var hasBegun = false

    init() {
        // As in project.yml: the extension's identifier is the app's, and one word more.
        let app = Bundle.main.bundleIdentifier ?? "org.vmesskit.sample"
        vpn = VMessVPNManager(
            VpnProfile(name: "VMessKit sample", extensionIdentifier: "\(app).tunnel", store: store))
    }

    /// Follows the VPN for as long as the screen is there.
    func follow() async {
        await attempt {
            guard try await vpn.load() else { return }
            isOnDemand = vpn.isOnDemand
            let json = try store.load().json
            link = (try? VMess.toShareLink(json)) ?? json
        }
        while !Task.isCancelled {
            await refresh()
            try? await Task.sleep(nanoseconds: 1_000_000_000)
        }
    }

    /// Connects, or disconnects.
    func toggle() {
        guard !isBusy else { return }
        isBusy = true
        Task {
            await attempt { if isOn { try await vpn.stop() } else { try await connect() } }
            isBusy = false
            await refresh()
        }
    }

    /// Has the system start the VPN by itself, or no longer.
    func applyOnDemand() {
        guard vpn.isOnDemand != isOnDemand else { return }
        let wanted: VpnProfile.OnDemand = isOnDemand ? .always(exceptSsids: []) : .off
        Task { await attempt { try await vpn.setOnDemand(wanted) } }
    }

    /// Looks how the VPN is.
    func refresh() async {
        isOn = [.connecting, .connected, .reasserting].contains(vpn.status)
        if isOn { hasBegun = true }
        guard vpn.status == .connected || vpn.status == .reasserting else {
            (rates, counters) = (nil, [:])
            state = isOn ? "Connecting" : "Disconnected"
            if hasBegun, vpn.status == .disconnected {
                hasBegun = false
                problem = await vpn.lastError()
            }
            return
        }
        do {
            if case .status(let status) = try await vpn.send(.status) {
                state = status.degraded.isEmpty ? status.state : "\(status.state): \(status.degraded)"
                problem = status.lastError?.error
            }
            if case .stats(let now) = try await vpn.send(.stats) {
                rates = Rates(from: counters, to: now)
                counters = now
            }
            if case .logs(let new) = try await vpn.send(.logs(since: lines.last?.number ?? 0)) {
                lines = Array((lines + new).suffix(VpnModel.shownLines))
            }
        } catch let error as VMessError where error.kind == .notRunning {
            // It has ended between two looks; the next one tells why.
        } catch {
            show(error)
        }
    }

    private func connect() async throws {
        let text = link.trimmingCharacters(in: .whitespacesAndNewlines)
        let json = text.hasPrefix("{") ? text : try VMess.parseShareLink(text)
        problem = nil
        lines = []
        try await vpn.setOnDemand(isOnDemand ? .always(exceptSsids: []) : .off)
        try await vpn.install(VpnConfiguration(json: json, bypassLan: true))
        try await vpn.start()
        hasBegun = true
    }

    private func attempt(_ work: () async throws -> Void) async {
        do { try await work() } catch { show(error) }
    }

    private func show(_ error: any Error) {
        problem = error as? VMessError ?? VMessError(.hostFailed, error.localizedDescription)
    }
}
