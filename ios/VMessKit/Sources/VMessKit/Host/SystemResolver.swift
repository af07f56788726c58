import Foundation

/// Resolves names as the system does, which on a network of IPv6 alone makes addresses that reach IPv4 (NAT64).
enum SystemResolver {
    /// The addresses of a name; it may take as long as the system lets it.
    ///
    /// - Throws: `VMessError`, `serverUnreachable`, with the system's reason.
    static func resolve(_ host: String) throws -> [String] {
        var hints = addrinfo()
        #if canImport(Glibc)
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        #else
            hints.ai_socktype = SOCK_STREAM
        #endif
        hints.ai_family = AF_UNSPEC
        hints.ai_flags = AI_ADDRCONFIG
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, nil, &hints, &list)
        guard status == 0 else {
            throw VMessError(
                .serverUnreachable(stage: .resolve), "the server's name does not resolve",
                reason: String(cString: gai_strerror(status)))
        }
        defer { freeaddrinfo(list) }
        let addresses = sequence(first: list) { $0?.pointee.ai_next }
            .prefix { $0 != nil }.compactMap { $0.flatMap { address($0.pointee) } }
        var seen: Set<String> = []
        return addresses.filter { seen.insert($0).inserted }
    }

    private static func address(_ info: addrinfo) -> String? {
        guard let raw = UnsafeRawPointer(info.ai_addr) else { return nil }
        switch info.ai_family {
        case AF_INET:
            let address = raw.loadUnaligned(as: sockaddr_in.self).sin_addr
            return Prefix.text(withUnsafeBytes(of: address) { Array($0) })
        case AF_INET6:
            let address = raw.loadUnaligned(as: sockaddr_in6.self).sin6_addr
            return Prefix.text(withUnsafeBytes(of: address) { Array($0) })
        default: return nil
        }
    }
}
