import Foundation

/// What the app's half uses of Apple's module `Security`, for a compiler without it: a keychain in memory.
public typealias OSStatus = Int32
public typealias CFDictionary = [String: Any]
public typealias CFTypeRef = Any

public let kSecClass = "class"
public let kSecClassGenericPassword = "genp"
public let kSecAttrService = "svce"
public let kSecAttrAccount = "acct"
public let kSecAttrAccessGroup = "agrp"
public let kSecAttrAccessible = "pdmn"
public let kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly = "cku"
public let kSecUseDataProtectionKeychain = "nleg"
public let kSecReturnData = "r_Data"
public let kSecMatchLimit = "m_Limit"
public let kSecMatchLimitOne = "m_LimitOne"
public let kSecValueData = "v_Data"
public let errSecSuccess: OSStatus = 0
public let errSecItemNotFound: OSStatus = -25300
public let errSecDuplicateItem: OSStatus = -25299

private let lock = NSLock()
private nonisolated(unsafe) var items: [String: Data] = [:]

private func key(_ query: CFDictionary) -> String {
    [kSecAttrAccessGroup, kSecAttrService, kSecAttrAccount].map { query[$0] as? String ?? "" }.joined(separator: "/")
}

public func SecItemAdd(_ attributes: CFDictionary, _ result: UnsafeMutablePointer<CFTypeRef?>?) -> OSStatus {
    lock.withLock {
        guard items[key(attributes)] == nil else { return errSecDuplicateItem }
        items[key(attributes)] = attributes[kSecValueData] as? Data
        return errSecSuccess
    }
}

public func SecItemUpdate(_ query: CFDictionary, _ attributes: CFDictionary) -> OSStatus {
    lock.withLock {
        guard items[key(query)] != nil else { return errSecItemNotFound }
        items[key(query)] = attributes[kSecValueData] as? Data
        return errSecSuccess
    }
}

public func SecItemCopyMatching(_ query: CFDictionary, _ result: UnsafeMutablePointer<CFTypeRef?>?) -> OSStatus {
    lock.withLock {
        guard let data = items[key(query)] else { return errSecItemNotFound }
        result?.pointee = data
        return errSecSuccess
    }
}

public func SecItemDelete(_ query: CFDictionary) -> OSStatus {
    lock.withLock { items.removeValue(forKey: key(query)) == nil ? errSecItemNotFound : errSecSuccess }
}

public func SecCopyErrorMessageString(_ status: OSStatus, _ reserved: UnsafeMutableRawPointer?) -> String? {
    "status \(status)"
}
