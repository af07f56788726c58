import Foundation
import NetworkExtension
import VMessKit

/// What an app says of its VPN's profile, beside the configuration.
public struct VpnProfile: Sendable {
    /// When the system starts and stops the VPN by itself.
    public enum OnDemand: Sendable, Equatable {
        /// Never.
        case off
        /// Always, except on the named Wi-Fi networks.
        case always(exceptSsids: [String])
        /// On Wi-Fi alone.
        case wiFi
        /// On cellular networks alone.
        case cellular
    }

    /// The name that the system shows.
    public var name: String
    /// The extension's bundle identifier.
    public var extensionIdentifier: String
    /// Where the configuration is left for the extension.
    public var store: ConfigStore
    /// When the system starts it by itself.
    public var onDemand: OnDemand
    /// Lets nothing pass beside the tunnel, not even while it is down.
    public var includeAllNetworks: Bool
    /// Has the tunnel's routes win over more exact ones of the local network.
    public var enforceRoutes: Bool
    /// With `includeAllNetworks` or `enforceRoutes`: leaves the local network out.
    public var excludeLocalNetworks: Bool

    /// Makes a profile.
    public init(
        name: String, extensionIdentifier: String, store: ConfigStore = ConfigStore(), onDemand: OnDemand = .off,
        includeAllNetworks: Bool = false, enforceRoutes: Bool = false, excludeLocalNetworks: Bool = true
    ) {
        self.name = name
        self.extensionIdentifier = extensionIdentifier
        self.store = store
        self.onDemand = onDemand
        self.includeAllNetworks = includeAllNetworks
        self.enforceRoutes = enforceRoutes
        self.excludeLocalNetworks = excludeLocalNetworks
    }
}

/// An app's hold on its VPN: installs the profile, starts and stops the tunnel, and asks the extension how it is. The VPN
/// goes on without the app.
@MainActor
public final class VMessVPNManager {
    private let profile: VpnProfile
    private var manager: NETunnelProviderManager?

    /// Makes a manager of the VPN that the profile describes; nothing is installed by that.
    public init(_ profile: VpnProfile) {
        self.profile = profile
    }

    /// How the system says that the VPN is; `invalid` until it is installed or loaded.
    public var status: NEVPNStatus { manager?.connection.status ?? .invalid }

    /// Finds the profile if it is installed; false if it is not.
    @discardableResult
    public func load() async throws -> Bool {
        let all = try await withCheckedThrowingContinuation {
            (continuation: CheckedContinuation<Unchecked<[NETunnelProviderManager]>, any Error>) in
            NETunnelProviderManager.loadAllFromPreferences { managers, error in
                if let error { return continuation.resume(throwing: refused(error)) }
                continuation.resume(returning: Unchecked(managers ?? []))
            }
        }.value
        manager = all.first {
            ($0.protocolConfiguration as? NETunnelProviderProtocol)?.providerBundleIdentifier
                == profile.extensionIdentifier
        }
        return manager != nil
    }

    /// Stores the configuration, and installs the profile or brings it up to date; the first time, the system asks the
    /// user. A tunnel that runs takes a new configuration over by `send(.reload)`.
    ///
    /// - Throws: `VMessError`: `configInvalid` if the configuration is not valid; `notPermitted` if the user or the
    ///   system refuses.
    public func install(_ configuration: VpnConfiguration) async throws {
        try VMess.requireValid(configuration.json)
        try await load()
        try profile.store.save(configuration)
        let manager = self.manager ?? NETunnelProviderManager()
        let settings = NETunnelProviderProtocol()
        settings.providerBundleIdentifier = profile.extensionIdentifier
        settings.providerConfiguration = profile.store.providerConfiguration
        settings.serverAddress = configuration.remoteAddress
        settings.includeAllNetworks = profile.includeAllNetworks
        settings.enforceRoutes = profile.enforceRoutes
        settings.excludeLocalNetworks = profile.excludeLocalNetworks
        manager.protocolConfiguration = settings
        manager.localizedDescription = profile.name
        manager.onDemandRules = profile.onDemand.rules
        manager.isOnDemandEnabled = profile.onDemand != .off
        manager.isEnabled = true
        try await complete { manager.saveToPreferences(completionHandler: $0) }
        // A profile that has just been saved cannot be started before it is read again.
        try await complete { manager.loadFromPreferences(completionHandler: $0) }
        self.manager = manager
    }

    /// Starts the VPN. Whether it comes up is told by `status` and `lastError`.
    ///
    /// - Throws: `VMessError`, `notPermitted` if it is not installed, or another VPN was chosen in the settings and the
    ///   system refuses.
    public func start() async throws {
        let manager = try await installed()
        if !manager.isEnabled {
            manager.isEnabled = true
            try await complete { manager.saveToPreferences(completionHandler: $0) }
            try await complete { manager.loadFromPreferences(completionHandler: $0) }
        }
        do { try manager.connection.startVPNTunnel(options: nil) } catch { throw refused(error) }
    }

    /// Stops the VPN. One that is started on demand is told not to start again before the next `install`.
    public func stop() async throws {
        let manager = try await installed()
        if manager.isOnDemandEnabled {
            manager.isOnDemandEnabled = false
            try await complete { manager.saveToPreferences(completionHandler: $0) }
        }
        manager.connection.stopVPNTunnel()
    }

    /// Removes the profile and the stored configuration.
    public func remove() async throws {
        try await load()
        if let manager { try await complete { manager.removeFromPreferences(completionHandler: $0) } }
        manager = nil
        try profile.store.remove()
    }

    /// Why the VPN was disconnected the last time; nil if nobody is at fault, and below iOS 16, which does not tell.
    public func lastError() async -> VMessError? {
        guard #available(iOS 16, macOS 13, *), let connection = manager?.connection else { return nil }
        return await withCheckedContinuation { continuation in
            connection.fetchLastDisconnectError { error in
                continuation.resume(returning: error.map(passedOn))
            }
        }
    }

    /// Asks the extension.
    ///
    /// - Throws: `VMessError`: `notRunning` if there is nobody to answer; else what the extension has failed with.
    public func send(_ request: AppRequest) async throws -> AppResponse {
        guard let session = try await installed().connection as? NETunnelProviderSession else {
            throw VMessError(.notRunning, "the VPN is not running")
        }
        let message = try AppMessages.encode(request)
        let answer = try await withCheckedThrowingContinuation {
            (continuation: CheckedContinuation<Data?, any Error>) in
            do {
                try session.sendProviderMessage(message) { continuation.resume(returning: $0) }
            } catch {
                continuation.resume(
                    throwing: VMessError(
                        .notRunning, "the VPN is not running", hint: "start it first",
                        reason: String(describing: error)))
            }
        }
        guard let answer else { throw VMessError(.notRunning, "the VPN did not answer", hint: "start it first") }
        let response = try AppMessages.decode(AppResponse.self, from: answer)
        if case .failed(let message) = response { throw message.error }
        return response
    }

    private func installed() async throws -> NETunnelProviderManager {
        if manager == nil { try await load() }
        guard let manager else {
            throw VMessError(.notPermitted, "the VPN is not installed on this device", hint: "install it first")
        }
        return manager
    }

    private func complete(_ call: (@escaping (Error?) -> Void) -> Void) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            call { error in
                if let error { continuation.resume(throwing: refused(error)) } else { continuation.resume() }
            }
        }
    }
}

extension VMess {
    /// Throws the first error of a config.
    fileprivate static func requireValid(_ json: String) throws {
        guard let error = validateConfig(json).first(where: { $0.severity == .error }) else { return }
        throw VMessError(.configInvalid, error.text, hint: error.hint, path: error.path)
    }
}

extension VpnProfile.OnDemand {
    /// The rule in the system's words; the first that matches decides.
    fileprivate var rules: [NEOnDemandRule]? {
        switch self {
        case .off: return nil
        case .always(let ssids):
            let except = NEOnDemandRuleDisconnect()
            except.interfaceTypeMatch = .wiFi
            except.ssidMatch = ssids
            return (ssids.isEmpty ? [] : [except]) + [NEOnDemandRuleConnect()]
        case .wiFi: return VpnProfile.OnDemand.only(.wiFi)
        case .cellular:
            #if os(macOS)
                return VpnProfile.OnDemand.only(.any)
            #else
                return VpnProfile.OnDemand.only(.cellular)
            #endif
        }
    }

    private static func only(_ type: NEOnDemandRuleInterfaceType) -> [NEOnDemandRule] {
        let rule = NEOnDemandRuleConnect()
        rule.interfaceTypeMatch = type
        return [rule, NEOnDemandRuleDisconnect()]
    }
}

/// An error of the system's own.
private func refused(_ error: any Error) -> VMessError {
    VMessError(
        .notPermitted, "the system refuses the VPN's profile",
        hint: "allow it when the system asks, and see that no other app manages this device's VPN",
        reason: String(describing: error))
}

/// The extension's error, or the system's word for why it ended.
private func passedOn(_ error: any Error) -> VMessError {
    VMessError(passedOn: error as NSError) ?? VMessError(.tunGone, error.localizedDescription, reason: "\(error)")
}
