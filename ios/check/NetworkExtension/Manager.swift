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

open class NEVPNConnection: NSObject {
    public var status: NEVPNStatus = .disconnected
    /// Tests: the error of the last disconnect.
    public var lastDisconnectError: (any Error)?

    open func startVPNTunnel(options: [String: NSObject]? = nil) throws { status = .connecting }

    open func stopVPNTunnel() { status = .disconnecting }

    open func fetchLastDisconnectError(completionHandler handler: @escaping (Error?) -> Void) {
        handler(lastDisconnectError)
    }
}

open class NETunnelProviderSession: NEVPNConnection {
    /// Tests: what the extension answers; nil: it is not running.
    public var answer: ((Data) -> Data?)?

    open func sendProviderMessage(_ messageData: Data, responseHandler: ((Data?) -> Void)?) throws {
        guard let answer else { throw NSError(domain: "NEVPNErrorDomain", code: 2) }
        responseHandler?(answer(messageData))
    }
}

open class NETunnelProviderManager: NSObject {
    /// Tests: the profiles that are installed.
    public nonisolated(unsafe) static var installed: [NETunnelProviderManager] = []

    public var localizedDescription: String?
    public var protocolConfiguration: NEVPNProtocol?
    public var isEnabled = false
    public var isOnDemandEnabled = false
    public var onDemandRules: [NEOnDemandRule]?
    public let connection: NEVPNConnection = NETunnelProviderSession()

    open class func loadAllFromPreferences(
        completionHandler: @escaping ([NETunnelProviderManager]?, Error?) -> Void
    ) {
        completionHandler(installed, nil)
    }

    open func loadFromPreferences(completionHandler: @escaping (Error?) -> Void) { completionHandler(nil) }

    open func saveToPreferences(completionHandler: ((Error?) -> Void)? = nil) {
        if !NETunnelProviderManager.installed.contains(self) { NETunnelProviderManager.installed.append(self) }
        completionHandler?(nil)
    }

    open func removeFromPreferences(completionHandler: ((Error?) -> Void)? = nil) {
        NETunnelProviderManager.installed.removeAll { $0 === self }
        completionHandler?(nil)
    }
}
