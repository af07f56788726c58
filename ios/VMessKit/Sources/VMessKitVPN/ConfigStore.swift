import Foundation
import Security
import VMessKit

/// Where the app leaves a configuration, which holds ids, for its extension: one item of a keychain group that both are
/// in. It can be read from the first unlock after a boot on, so on-demand starts find it.
public struct ConfigStore: Sendable, Equatable {
    /// The item's name.
    public let service: String
    /// The keychain group (`TEAMID.group`), or an app group; nil: the only group that the two have.
    public let accessGroup: String?

    private static let account = "configuration"
    private static let serviceKey = "org.vmesskit.service"
    private static let groupKey = "org.vmesskit.accessGroup"

    /// Names an item.
    public init(service: String = "org.vmesskit", accessGroup: String? = nil) {
        self.service = service
        self.accessGroup = accessGroup
    }

    /// The item that a profile names.
    init(_ providerConfiguration: [String: Any]) {
        self.init(
            service: providerConfiguration[ConfigStore.serviceKey] as? String ?? "org.vmesskit",
            accessGroup: providerConfiguration[ConfigStore.groupKey] as? String)
    }

    /// How a profile names the item; it says nothing of what is in it.
    var providerConfiguration: [String: Any] {
        var configuration: [String: Any] = [ConfigStore.serviceKey: service]
        configuration[ConfigStore.groupKey] = accessGroup
        return configuration
    }

    /// Stores a configuration in the place of the one before.
    ///
    /// - Throws: `VMessError`, `notPermitted`, with the keychain's reason.
    public func save(_ configuration: VpnConfiguration) throws {
        let data = try JSONEncoder().encode(StoredConfiguration(configuration))
        let status = SecItemUpdate(query as CFDictionary, [kSecValueData as String: data] as CFDictionary)
        guard status == errSecItemNotFound else { return try check(status) }
        var item = query
        item[kSecValueData as String] = data
        item[kSecAttrAccessible as String] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
        try check(SecItemAdd(item as CFDictionary, nil))
    }

    /// Reads the configuration.
    ///
    /// - Throws: `VMessError`: `notPermitted` if it is missing or cannot be read yet; `configInvalid` if it is none.
    public func load() throws -> VpnConfiguration {
        var request = query
        request[kSecReturnData as String] = true
        request[kSecMatchLimit as String] = kSecMatchLimitOne
        var found: CFTypeRef?
        try check(SecItemCopyMatching(request as CFDictionary, &found))
        guard let data = found as? Data,
            let stored = try? JSONDecoder().decode(StoredConfiguration.self, from: data)
        else {
            throw VMessError(.configInvalid, "the stored configuration cannot be read", hint: "install the VPN again")
        }
        return stored.configuration
    }

    /// Forgets the configuration.
    public func remove() throws {
        let status = SecItemDelete(query as CFDictionary)
        if status != errSecItemNotFound { try check(status) }
    }

    private var query: [String: Any] {
        var query: [String: Any] = [
            kSecClass as String: kSecClassGenericPassword, kSecAttrService as String: service,
            kSecAttrAccount as String: ConfigStore.account, kSecUseDataProtectionKeychain as String: true,
        ]
        query[kSecAttrAccessGroup as String] = accessGroup
        return query
    }

    private func check(_ status: OSStatus) throws {
        guard status != errSecSuccess else { return }
        let reason = SecCopyErrorMessageString(status, nil).map { "\($0)" } ?? "OSStatus \(status)"
        let isMissing = status == errSecItemNotFound
        throw VMessError(
            .notPermitted,
            isMissing ? "no configuration is stored for the VPN" : "the keychain refuses the VPN's configuration",
            hint: isMissing
                ? "install the VPN in the app"
                : "put the app and its extension into one keychain group, and unlock the device once",
            reason: reason)
    }
}

/// A configuration as it is stored.
private struct StoredConfiguration: Codable {
    let json: String
    let memoryLimitBytes: UInt64?
    let bypassLan: Bool
    let matchDomains: [String]
    let remoteAddress: String

    init(_ configuration: VpnConfiguration) {
        json = configuration.json
        memoryLimitBytes = configuration.options.memoryLimitBytes
        bypassLan = configuration.bypassLan
        matchDomains = configuration.matchDomains
        remoteAddress = configuration.remoteAddress
    }

    var configuration: VpnConfiguration {
        VpnConfiguration(
            json: json, options: TunnelOptions(memoryLimitBytes: memoryLimitBytes), bypassLan: bypassLan,
            matchDomains: matchDomains, remoteAddress: remoteAddress)
    }
}
