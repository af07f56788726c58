import Foundation

/// An IP network, or an address with the length of its network's prefix.
public struct Prefix: Sendable, Hashable {
    /// The address, 4 bytes or 16.
    public let bytes: [UInt8]
    /// The length of the prefix, in bits.
    public let length: Int

    /// What is not the internet: the networks of homes and offices, links and groups.
    public static let local: [Prefix] = [
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
        "fc00::/7", "fe80::/10", "ff00::/8",
    ].compactMap { try? Prefix($0) }

    /// Reads `192.0.2.0/24`; without a length it is one address.
    ///
    /// - Throws: `VMessError`, `misuse`, for anything else, a name above all: nothing is looked up.
    public init(_ text: String) throws {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let bytes = Prefix.literal(String(parts[0])) else {
            throw VMessError(.misuse, "\"\(text)\" is no IP address")
        }
        let length = parts.count == 2 ? Int(parts[1]) : bytes.count * 8
        guard let length, (0...bytes.count * 8).contains(length) else {
            throw VMessError(.misuse, "\"\(text)\" has no valid prefix length")
        }
        self.bytes = bytes
        self.length = length
    }

    init(bytes: [UInt8], length: Int) {
        self.bytes = bytes
        self.length = length
    }

    /// Whether it is of IPv6.
    public var isV6: Bool { bytes.count == 16 }

    /// The network itself: the bits behind the prefix are 0.
    public var network: Prefix {
        Prefix(bytes: zip(bytes, mask).map { $0 & $1 }, length: length)
    }

    /// The mask of the prefix, as bytes.
    public var mask: [UInt8] {
        bytes.indices.map { UInt8(truncatingIfNeeded: 0xff00 >> min(8, max(0, length - $0 * 8))) }
    }

    /// The address as text.
    public var address: String { Prefix.text(bytes) }

    /// The mask as text, as IPv4 has it.
    public var maskText: String { Prefix.text(mask) }

    /// Whether every address of `other` is in this one.
    public func contains(_ other: Prefix) -> Bool {
        bytes.count == other.bytes.count && length <= other.length
            && Prefix(bytes: other.bytes, length: length).network.bytes == network.bytes
    }

    /// Whether they have addresses in common.
    public func overlaps(_ other: Prefix) -> Bool { contains(other) || other.contains(self) }

    /// Reads an address without a zone.
    static func literal(_ text: String) -> [UInt8]? {
        var v4 = in_addr()
        if inet_pton(AF_INET, text, &v4) == 1 { return withUnsafeBytes(of: v4) { Array($0) } }
        var v6 = in6_addr()
        if inet_pton(AF_INET6, text, &v6) == 1 { return withUnsafeBytes(of: v6) { Array($0) } }
        return nil
    }

    static func text(_ bytes: [UInt8]) -> String {
        var text = [CChar](repeating: 0, count: 64)
        let family = bytes.count == 16 ? AF_INET6 : AF_INET
        guard inet_ntop(family, bytes, &text, socklen_t(text.count)) != nil else { return "" }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension Prefix: CustomStringConvertible {
    public var description: String { "\(address)/\(length)" }
}
