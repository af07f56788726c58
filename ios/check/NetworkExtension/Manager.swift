import Dispatch
import Foundation

/// What an app manages a VPN with; the profiles are in memory, and no extension answers unless a test says how.
open class NEVPNProtocol: NSObject {
    public var serverAddress: String?
    public var includeAllNetworks = false
    public var enforceRoutes = false
    public var excludeLocalNetworks = false
    public var disconnectOnSleep = false
}

open class NETunnelProviderProtocol: NEVPNProtocol {
    public var providerConfiguration: [String: Any]?
    public var providerBundleIdentifier: String?
}

open class NEOnDemandRule: NSObject {
    public var interfaceTypeMatch: NEOnDemandRuleInterfaceType = .any
    public var ssidMatch: [String]?
}

public final class NEOnDemandRuleConnect: NEOnDemandRule {}
public final class NEOnDemandRuleDisconnect: NEOnDemandRule {}
public final class NEOnDemandRuleIgnore: NEOnDemandRule {}

public enum NEOnDemandRuleInterfaceType: Int, Sendable {
    case any = 0
    case wiFi = 2
    case cellular = 3
}

public enum NEVPNStatus: Int, Sendable {
    case invalid, disconnected, connecting, connected, reasserting, disconnecting
}

open class NEVPNConnection: NSObject, @unchecked Sendable {
    private let lock = NSLock()
    private var current = NEVPNStatus.disconnected
    private var disconnectError: (any Error)?

    /// Tests may set it; whoever observes hears of that on the main thread.
    public var status: NEVPNStatus {
        get { lock.withLock { current } }
        set {
            lock.withLock { current = newValue }
            tell(.NEVPNStatusDidChange)
        }
    }

    /// Tests: the error of the last disconnect.
    public var lastDisconnectError: (any Error)? {
        get { lock.withLock { disconnectError } }
        set { lock.withLock { disconnectError = newValue } }
    }

    open func startVPNTunnel(options: [String: NSObject]? = nil) throws { status = .connecting }

    open func stopVPNTunnel() { status = .disconnecting }

    open func fetchLastDisconnectError(completionHandler handler: @escaping (Error?) -> Void) {
        handler(lastDisconnectError)
    }
}

/// Runs a test's extension in this process, if there is one.
open class NETunnelProviderSession: NEVPNConnection, @unchecked Sendable {
    /// Tests: what the extension answers; nil: it is not running.
    public var answer: ((Data) -> Data?)?
    fileprivate weak var manager: NETunnelProviderManager?
    private var provider: NEPacketTunnelProvider?

    open override func startVPNTunnel(options: [String: NSObject]? = nil) throws {
        guard manager?.isEnabled == true else { throw NSError(domain: "NEVPNErrorDomain", code: 2) }
        try super.startVPNTunnel(options: options)
        guard let made = NETunnelProviderManager.makeExtension?() else { return }
        lastDisconnectError = nil
        provider = made
        if let settings = manager?.protocolConfiguration { made.protocolConfiguration = settings }
        made.onCancel = { [weak self] in self?.ended($0) }
        made.startTunnel(options: nil) { [self] error in
            if let error { ended(error) } else { status = .connected }
        }
    }

    open override func stopVPNTunnel() {
        super.stopVPNTunnel()
        guard let provider else { return }
        provider.stopTunnel(with: .userInitiated) { [self] in ended(nil) }
    }

    open func sendProviderMessage(_ messageData: Data, responseHandler: ((Data?) -> Void)?) throws {
        if let provider { return provider.handleAppMessage(messageData, completionHandler: responseHandler) }
        guard let answer else { throw NSError(domain: "NEVPNErrorDomain", code: 2) }
        responseHandler?(answer(messageData))
    }

    /// The process of the extension ends with its tunnel; its errors come over as the system can carry them.
    private func ended(_ error: (any Error)?) {
        provider = nil
        if let error = error as NSError? {
            lastDisconnectError = NSError(domain: error.domain, code: error.code, userInfo: error.userInfo)
        }
        status = .disconnected
    }
}

extension Notification.Name {
    public static let NEVPNStatusDidChange = Notification.Name("com.apple.networkextension.statuschange")
    public static let NEVPNConfigurationChange = Notification.Name("com.apple.networkextension.config-changed")
}

private func tell(_ name: Notification.Name) {
    DispatchQueue.main.async { NotificationCenter.default.post(name: name, object: nil) }
}

open class NETunnelProviderManager: NSObject {
    /// Tests: the profiles that are installed.
    public nonisolated(unsafe) static var installed: [NETunnelProviderManager] = []
    /// Tests: how the system makes the extension of an app; nil: nothing is started.
    public nonisolated(unsafe) static var makeExtension: (() -> NEPacketTunnelProvider)?
    /// Tests: what the user or the system refuses the next save with.
    public nonisolated(unsafe) static var refusal: (any Error)?

    public var localizedDescription: String?
    public var protocolConfiguration: NEVPNProtocol?
    public var isEnabled = false
    public var isOnDemandEnabled = false
    public var onDemandRules: [NEOnDemandRule]?
    public let connection: NEVPNConnection = NETunnelProviderSession()

    public override init() {
        super.init()
        (connection as? NETunnelProviderSession)?.manager = self
    }

    open class func loadAllFromPreferences(
        completionHandler: @escaping ([NETunnelProviderManager]?, Error?) -> Void
    ) {
        completionHandler(installed, nil)
    }

    open func loadFromPreferences(completionHandler: @escaping (Error?) -> Void) { completionHandler(nil) }

    open func saveToPreferences(completionHandler: ((Error?) -> Void)? = nil) {
        if let refusal = NETunnelProviderManager.refusal { return completionHandler?(refusal) ?? () }
        if !NETunnelProviderManager.installed.contains(self) { NETunnelProviderManager.installed.append(self) }
        tell(.NEVPNConfigurationChange)
        completionHandler?(nil)
    }

    open func removeFromPreferences(completionHandler: ((Error?) -> Void)? = nil) {
        NETunnelProviderManager.installed.removeAll { $0 === self }
        tell(.NEVPNConfigurationChange)
        completionHandler?(nil)
    }
}
