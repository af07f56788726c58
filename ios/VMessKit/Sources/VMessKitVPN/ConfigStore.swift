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

    /// The items' accounts.
    private enum Item: String {
        case configuration
        /// What a run has ended with.
        case lastError
    }

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
        try write(.configuration, JSONEncoder().encode(StoredConfiguration(configuration)))
    }

    /// Reads the configuration.
    ///
    /// - Throws: `VMessError`: `notPermitted` if it is missing or cannot be read yet; `configInvalid` if it is none.
    public func load() throws -> VpnConfiguration {
        let data = try read(.configuration)
        guard let stored = try? JSONDecoder().decode(StoredConfiguration.self, from: data) else {
            throw VMessError(.configInvalid, "the stored configuration cannot be read", hint: "install the VPN again")
        }
        return stored.configuration
    }

    /// Forgets the configuration, and what has been noted.
    public func remove() throws {
        try remove(.configuration)
        try remove(.lastError)
    }

    /// Leaves the app a note of what a run has ended with; nil: of nothing.
    func note(_ error: VMessError?) throws {
        guard let error else { return try remove(.lastError) }
        try write(.lastError, JSONEncoder().encode(ErrorMessage(error)))
    }

    /// What the last run has ended with, as far as it was noted.
    func noted() -> VMessError? {
        guard let data = try? read(.lastError) else { return nil }
        return try? JSONDecoder().decode(ErrorMessage.self, from: data).error
    }

    private func write(_ name: Item, _ data: Data) throws {
        let status = SecItemUpdate(query(name) as CFDictionary, [kSecValueData as String: data] as CFDictionary)
        guard status == errSecItemNotFound else { return try check(status) }
        var item = query(name)
        item[kSecValueData as String] = data
        item[kSecAttrAccessible as String] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
        try check(SecItemAdd(item as CFDictionary, nil))
    }

    private func read(_ name: Item) throws -> Data {
        var request = query(name)
        request[kSecReturnData as String] = true
        request[kSecMatchLimit as String] = kSecMatchLimitOne
        var found: CFTypeRef?
        try check(SecItemCopyMatching(request as CFDictionary, &found))
        return found as? Data ?? Data()
    }

    private func remove(_ name: Item) throws {
        let status = SecItemDelete(query(name) as CFDictionary)
        if status != errSecItemNotFound { try check(status) }
    }

    private func query(_ name: Item) -> [String: Any] {
        var query: [String: Any] = [
            kSecClass as String: kSecClassGenericPassword, kSecAttrService as String: service,
            kSecAttrAccount as String: name.rawValue, kSecUseDataProtectionKeychain as String: true,
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
