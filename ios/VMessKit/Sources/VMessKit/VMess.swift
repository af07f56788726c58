import Foundation
import VMessKitCore

/// What needs no tunnel: configs, share links, subscriptions, and measuring servers.
public enum VMess {
    /// The library's version, such as `0.1.0`.
    public static var version: String { VMessKitCore.version() }

    /// Checks a config (V2Ray's JSON, comments allowed) without doing any IO.
    public static func validateConfig(_ json: String) -> [Diagnostic] {
        VMessKitCore.validateConfig(json: json)
    }

    /// Writes a config in a uniform layout.
    ///
    /// - Throws: `VMessError`, `configInvalid`.
    public static func formatConfig(_ json: String) throws -> String {
        try translated { try VMessKitCore.formatConfig(json: json) }
    }

    /// Makes a config, as JSON, of a `vmess://` share link.
    ///
    /// - Throws: `VMessError`, `configInvalid`.
    public static func parseShareLink(_ uri: String) throws -> String {
        try translated { try VMessKitCore.parseShareLink(uri: uri) }
    }

    /// Makes a share link, which holds the id, of a config's first VMess outbound.
    ///
    /// - Throws: `VMessError`, `configInvalid`.
    public static func toShareLink(_ json: String) throws -> String {
        try translated { try VMessKitCore.toShareLink(json: json) }
    }

    /// Makes configs, as JSON, of a subscription's body.
    ///
    /// - Throws: `VMessError`.
    public static func parseSubscription(_ body: Data) throws -> [String] {
        try translated { try VMessKitCore.parseSubscription(bytes: body) }
    }

    /// Measures how long servers take to fetch an address, without a running tunnel; one result a config.
    ///
    /// - Throws: `VMessError`.
    public static func measure(
        _ request: MeasureRequest, platform: (any Platform)? = nil
    ) async throws -> [ServerMeasurement] {
        let adapter = platform.map(PlatformAdapter.init)
        return try await translated {
            try await VMessKitCore.measure(request: request, platform: adapter).map(ServerMeasurement.init)
        }
    }
}

/// What was measured of one config: how many milliseconds, or why it failed.
public struct ServerMeasurement: Sendable, Equatable {
    /// How long it took; nil if it failed.
    public let millis: Int?
    /// Why it failed.
    public let error: VMessError?

    init(_ measurement: VMessKitCore.Measurement) {
        millis = measurement.millis.map(Int.init)
        error = measurement.error.map(VMessError.init)
    }
}
