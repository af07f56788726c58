import Dispatch
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
    /// How long the extension may take for an answer, in seconds.
    static let patience: TimeInterval = 15

    private var profile: VpnProfile
    private var manager: NETunnelProviderManager?

    /// Makes a manager of the VPN that the profile describes; nothing is installed by that.
    public init(_ profile: VpnProfile) {
        self.profile = profile
    }

    /// How the system says that the VPN is; `invalid` until it is installed or loaded.
    public var status: NEVPNStatus { manager?.connection.status ?? .invalid }

    /// `status`: first the one now, then each change. A reader that is behind sees the newest.
    public var statuses: AsyncStream<NEVPNStatus> {
        let (stream, continuation) = AsyncStream.makeStream(of: NEVPNStatus.self, bufferingPolicy: .bufferingNewest(1))
        continuation.yield(status)
        let observers = [Notification.Name.NEVPNStatusDidChange, .NEVPNConfigurationChange].map { name in
            NotificationCenter.default.addObserver(forName: name, object: nil, queue: nil) { [weak self] _ in
                Task { @MainActor in
                    guard let self else { return continuation.finish() }
                    continuation.yield(self.status)
                }
            }
        }
        let held = Unchecked(observers)
        continuation.onTermination = { _ in held.value.forEach { NotificationCenter.default.removeObserver($0) } }
        return stream
    }

    /// Whether the system starts the VPN by itself; false until it is installed or loaded.
    public var isOnDemand: Bool { manager?.isOnDemandEnabled ?? false }

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
        demand(manager)
        manager.isEnabled = true
        try await save(manager)
        self.manager = manager
    }

    /// Says anew when the system starts the VPN by itself. Kept for `install` if it is not installed yet.
    public func setOnDemand(_ onDemand: VpnProfile.OnDemand) async throws {
        profile.onDemand = onDemand
        if manager == nil { try await load() }
        guard let manager else { return }
        demand(manager)
        try await save(manager)
    }

    /// Starts the VPN. Whether it comes up is told by `status` and `lastError`.
    ///
    /// - Throws: `VMessError`, `notPermitted` if it is not installed, or another VPN was chosen in the settings and the
    ///   system refuses.
    public func start() async throws {
        let manager = try await installed()
        if !manager.isEnabled || manager.isOnDemandEnabled != (profile.onDemand != .off) {
            demand(manager)
            manager.isEnabled = true
            try await save(manager)
        }
        try? profile.store.note(nil)
        do { try manager.connection.startVPNTunnel(options: nil) } catch { throw refused(error) }
    }

    /// Stops the VPN. One that is started on demand is told not to start again before the next `start`.
    public func stop() async throws {
        let manager = try await installed()
        if manager.isOnDemandEnabled {
            manager.isOnDemandEnabled = false
            try await save(manager)
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

    /// Why the VPN was disconnected the last time; nil if nobody is at fault.
    ///
    /// The system tells it from iOS 16 on, and the extension's own word is left in the keychain for all.
    public func lastError() async -> VMessError? {
        let noted = profile.store.noted()
        guard #available(iOS 16, macOS 13, *), let connection = manager?.connection else { return noted }
        let told = await withCheckedContinuation { (continuation: CheckedContinuation<VMessError?, Never>) in
            connection.fetchLastDisconnectError { error in
                continuation.resume(returning: error.map { passedOn($0, noted) })
            }
        }
        return told ?? noted
    }

    /// Asks the extension.
    ///
    /// - Throws: `VMessError`: `notRunning` if there is nobody to answer; `timeout` if the extension hangs; else what the
    ///   extension has failed with.
    public func send(_ request: AppRequest) async throws -> AppResponse {
        guard let session = try await installed().connection as? NETunnelProviderSession else {
            throw VMessError(.notRunning, "the VPN is not running")
        }
        let message = try AppMessages.encode(request)
        let answer = try await withCheckedThrowingContinuation {
            (continuation: CheckedContinuation<Data?, any Error>) in
            let once = Once(continuation)
            do {
                try session.sendProviderMessage(message) { once.resume(.success($0)) }
            } catch {
                once.resume(
                    .failure(
                        VMessError(
                            .notRunning, "the VPN is not running", hint: "start it first",
                            reason: String(describing: error))))
            }
            DispatchQueue.global().asyncAfter(deadline: .now() + VMessVPNManager.patience) {
                once.resume(.failure(VMessError(.timeout(what: "the extension"), "the VPN did not answer in time")))
            }
        }
        guard let answer else { throw VMessError(.notRunning, "the VPN did not answer", hint: "start it first") }
        let response = try AppMessages.decode(AppResponse.self, from: answer)
        if case .failed(let message) = response { throw message.error }
        return response
    }

    private func demand(_ manager: NETunnelProviderManager) {
        manager.onDemandRules = profile.onDemand.rules
        manager.isOnDemandEnabled = profile.onDemand != .off
    }

    private func save(_ manager: NETunnelProviderManager) async throws {
        try await complete { manager.saveToPreferences(completionHandler: $0) }
        // A profile that has just been saved cannot be started before it is read again.
        try await complete { manager.loadFromPreferences(completionHandler: $0) }
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

/// The extension's error; else what it has noted, or the system's word for why it ended.
private func passedOn(_ error: any Error, _ noted: VMessError?) -> VMessError {
    VMessError(passedOn: error as NSError) ?? noted
        ?? VMessError(.tunGone, error.localizedDescription, reason: "\(error)")
}

/// A continuation of which the first answer counts.
private final class Once<Value: Sendable>: Sendable {
    private let waiting: Locked<CheckedContinuation<Value, any Error>?>

    init(_ continuation: CheckedContinuation<Value, any Error>) {
        waiting = Locked(continuation)
    }

    func resume(_ result: Result<Value, any Error>) {
        let first = waiting.withLock { waiting in
            defer { waiting = nil }
            return waiting
        }
        first?.resume(with: result)
    }
}
