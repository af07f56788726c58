import VMessKitCore

/// What the library asks of its host, on threads of the library's own. An answer that takes too long is discarded.
///
/// The library holds the platform until the tunnel has stopped: a platform must hold what it belongs to, such as a
/// provider, weakly. A platform may call `Tunnel.requestStop`, and never waits for `Tunnel.stop`.
public protocol Platform: AnyObject, Sendable {
    /// Keeps the socket `fd` out of the tunnel, within 2 s; what it throws makes the dial fail. The sockets of a packet
    /// tunnel provider are out of it already.
    func protectSocket(_ fd: Int32) throws

    /// Resolves a server's name outside the tunnel, within 5 s; nil: not offered, the library asks by itself.
    func resolve(_ host: String, network: NetworkInfo?) throws -> [String]?

    /// The uid of the app that a flow belongs to; nil: unknown. Addresses are such as `192.0.2.1:443`.
    func findOwner(_ transport: Transport, source: String, destination: String) throws -> UInt32?
}

extension Platform {
    public func protectSocket(_ fd: Int32) throws {}

    public func resolve(_ host: String, network: NetworkInfo?) throws -> [String]? { nil }

    public func findOwner(_ transport: Transport, source: String, destination: String) throws -> UInt32? { nil }
}

/// A `Platform` as the bindings want it: every error is a refusal with a reason.
final class PlatformAdapter: VMessKitCore.Platform {
    private let platform: any Platform

    init(_ platform: any Platform) {
        self.platform = platform
    }

    func protectSocket(fd: Int32) throws {
        try guarded { try platform.protectSocket(fd) }
    }

    func resolve(host: String, network: NetworkInfo?) throws -> [String]? {
        try guarded { try platform.resolve(host, network: network) }
    }

    func findOwner(network: Transport, source: String, destination: String) throws -> UInt32? {
        try guarded { try platform.findOwner(network, source: source, destination: destination) }
    }

    private func guarded<Result>(_ call: () throws -> Result) throws -> Result {
        do { return try call() } catch let error as PlatformError { throw error } catch {
            throw PlatformError.Refused(reason: String(describing: error))
        }
    }
}
