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

    /// Reads a subscription's body: share links, as they are or as base64 of the whole, or the JSON of several clients.
    /// What cannot be read is a finding.
    ///
    /// - Throws: `VMessError`, `configInvalid`, if the body is none of that.
    public static func parseSubscription(_ body: Data) throws -> Subscription {
        try translated { try VMessKitCore.parseSubscription(bytes: body) }
    }

    /// Fetches an address through each config, without a running tunnel, and tells how long it took; one result a
    /// config, in their order.
    ///
    /// - Throws: `VMessError`, `misuse`, if the address is none, or the request out of its range.
    public static func measure(
        _ request: MeasureRequest, platform: (any Platform)? = nil
    ) async throws -> [ServerMeasurement] {
        let adapter = platform.map(PlatformAdapter.init)
        return try await translated {
            try await VMessKitCore.measure(request: request, platform: adapter).map(ServerMeasurement.init)
        }
    }
}

/// What was measured of one config: a time, or why there is none.
public struct ServerMeasurement: Sendable, Equatable {
    /// Seconds from the dial to the head of the HTTP answer; nil if it failed.
    public let latency: TimeInterval?
    /// Why it failed.
    public let error: VMessError?

    init(_ measurement: VMessKitCore.Measurement) {
        latency = measurement.latencyMicros.map { TimeInterval($0) / 1e6 }
        error = measurement.error.map(VMessError.init)
    }
}
