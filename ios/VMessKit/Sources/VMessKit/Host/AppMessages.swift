import Foundation

/// What an app asks its extension, over the system's messages between them.
public enum AppRequest: Codable, Sendable, Equatable {
    /// The state, for how long it has been so, and the newest error.
    case status
    /// The counters.
    case stats
    /// The open connections.
    case connections
    /// The log lines after a number.
    case logs(since: UInt64)
    /// To ask for the configuration again and take over what has changed.
    case reload
    /// To choose the outbound of a group.
    case select(group: String, tag: String)
}

/// What the extension answers.
public enum AppResponse: Codable, Sendable, Equatable {
    /// To `status`.
    case status(StatusMessage)
    /// To `stats`: the counters by their names.
    case stats([String: UInt64])
    /// To `connections`.
    case connections([ConnectionMessage])
    /// To `logs`: oldest first. The number of the last one is what to ask with next.
    case logs([LogMessage])
    /// To `reload` and `select`.
    case done
    /// To any, when it has failed.
    case failed(ErrorMessage)
}

/// An error on its way to the app.
public struct ErrorMessage: Codable, Sendable, Equatable {
    private let code: Int
    private let detail: String
    private let text: String
    private let hint: String
    private let reason: String
    private let path: String

    /// Packs an error up.
    public init(_ error: VMessError) {
        (code, detail, text) = (error.code, error.detail ?? "", error.text)
        (hint, reason, path) = (error.hint, error.reason, error.path)
    }

    /// The error again.
    public var error: VMessError {
        VMessError(VMessError.Kind(code: code, detail: detail), text, hint: hint, reason: reason, path: path)
    }
}

/// How the VPN is.
public struct StatusMessage: Codable, Sendable, Equatable {
    /// The state's name, such as `connected`.
    public let state: String
    /// What is wrong, if the state is `degraded`.
    public let degraded: String
    /// For how many seconds it has been so.
    public let since: TimeInterval
    /// The newest error.
    public let lastError: ErrorMessage?
}

/// One open connection.
public struct ConnectionMessage: Codable, Sendable, Equatable {
    /// Its id, unique in the tunnel's life.
    public let id: UInt64
    /// `tcp` or `udp`.
    public let network: String
    /// Where it goes: `host:port`.
    public let target: String
    /// The outbound's tag.
    public let outbound: String
    /// Payload bytes sent.
    public let uplinkBytes: UInt64
    /// Payload bytes received.
    public let downlinkBytes: UInt64
}

/// One log line.
public struct LogMessage: Codable, Sendable, Equatable {
    /// Counts from 1 on.
    public let number: UInt64
    /// Such as `warning`.
    public let level: String
    /// When.
    public let date: Date
    /// The text.
    public let text: String
}

/// The messages as bytes, and the extension's answers.
public enum AppMessages {
    /// The version of the messages; the two ends come from one app, and still may differ while it is updated.
    public static let version = 1
    /// The longest message that is taken or made, in bytes.
    public static let limit = 256 * 1024

    private struct Envelope<Body: Codable>: Codable {
        let version: Int
        let body: Body
    }

    private struct Version: Codable {
        let version: Int
    }

    /// Writes a message.
    ///
    /// - Throws: `VMessError`, `resourceLimit`, beyond the limit.
    public static func encode<Body: Codable>(_ body: Body) throws -> Data {
        let data = try JSONEncoder().encode(Envelope(version: version, body: body))
        guard data.count <= limit else {
            throw VMessError(.resourceLimit(what: "message size"), "the message is too long to be passed on")
        }
        return data
    }

    /// Reads a message.
    ///
    /// - Throws: `VMessError`: `resourceLimit` beyond the limit; `unsupported` if it is another version's; `misuse` if it
    ///   is none.
    public static func decode<Body: Codable>(_ type: Body.Type, from data: Data) throws -> Body {
        guard data.count <= limit else {
            throw VMessError(.resourceLimit(what: "message size"), "the message is too long")
        }
        do {
            let found = try JSONDecoder().decode(Version.self, from: data).version
            guard found == version else {
                throw VMessError(
                    .unsupported, "the app and its extension are of different versions", hint: "restart the VPN")
            }
            return try JSONDecoder().decode(Envelope<Body>.self, from: data).body
        } catch let error as VMessError { throw error } catch {
            throw VMessError(.misuse, "it is no message", reason: String(describing: error))
        }
    }

    /// Answers a request as an extension does; never fails, and never exceeds the limit.
    public static func answer(_ data: Data, of session: VpnSession) async -> Data {
        let response: AppResponse
        do { response = try await respond(to: decode(AppRequest.self, from: data), session) } catch {
            response = .failed(ErrorMessage(VMessError(any: error)))
        }
        if let data = try? encode(response) { return data }
        let shorter = response.halved
        return (try? encode(shorter)) ?? Data()
    }

    private static func respond(to request: AppRequest, _ session: VpnSession) async throws -> AppResponse {
        if case .logs(let since) = request { return .logs(session.logs.entries(since: since).map(LogMessage.init)) }
        guard let tunnel = session.tunnel else { throw VpnSession.notRunning }
        switch request {
        case .status: return .status(StatusMessage(tunnel.status, lastError: session.lastError))
        case .stats: return .stats(tunnel.stats.byName)
        case .connections: return .connections(try await tunnel.connections().map(ConnectionMessage.init))
        case .reload:
            try await session.reload()
            return .done
        case .select(let group, let tag):
            try tunnel.selectOutbound(group: group, tag: tag)
            return .done
        case .logs: return .done
        }
    }
}

extension AppResponse {
    /// As much of a list as fits: the newest lines, the first connections.
    fileprivate var halved: AppResponse {
        let fits: (AppResponse) -> Bool = { (try? AppMessages.encode($0)) != nil }
        switch self {
        case .logs(var lines):
            while !lines.isEmpty, !fits(.logs(lines)) { lines.removeFirst((lines.count + 1) / 2) }
            return .logs(lines)
        case .connections(var connections):
            while !connections.isEmpty, !fits(.connections(connections)) {
                connections.removeLast((connections.count + 1) / 2)
            }
            return .connections(connections)
        default:
            return .failed(
                ErrorMessage(VMessError(.resourceLimit(what: "message size"), "the answer is too long")))
        }
    }
}

extension StatusMessage {
    init(_ status: TunnelStatus, lastError: VMessError?) {
        if case .degraded(let reason) = status.state { degraded = reason } else { degraded = "" }
        state = status.state.name
        since = status.since
        self.lastError = (status.lastError ?? lastError).map(ErrorMessage.init)
    }
}

extension TunnelState {
    /// The state's name alone.
    public var name: String {
        switch self {
        case .idle: return "idle"
        case .starting: return "starting"
        case .connecting: return "connecting"
        case .connected: return "connected"
        case .noNetwork: return "noNetwork"
        case .degraded: return "degraded"
        case .stopping: return "stopping"
        case .stopped: return "stopped"
        }
    }
}

extension ConnectionMessage {
    init(_ connection: ConnectionInfo) {
        id = connection.id
        network = connection.network == .tcp ? "tcp" : "udp"
        target = connection.target
        outbound = connection.outbound
        uplinkBytes = connection.uplinkBytes
        downlinkBytes = connection.downlinkBytes
    }
}

extension LogMessage {
    init(_ entry: LogBuffer.Entry) {
        number = entry.number
        level = "\(entry.line.level)"
        date = Date(timeIntervalSince1970: TimeInterval(entry.line.unixMillis) / 1000)
        text = entry.line.text
    }
}

extension TunnelStats {
    /// The counters by the names of their fields.
    fileprivate var byName: [String: UInt64] {
        [
            "uplinkBytes": uplinkBytes, "downlinkBytes": downlinkBytes, "tunPacketsIn": tunPacketsIn,
            "tunPacketsOut": tunPacketsOut, "dropped": dropped, "tcpTotal": tcpTotal, "tcpOpen": tcpOpen,
            "udpTotal": udpTotal, "udpOpen": udpOpen, "dnsQueries": dnsQueries, "dials": dials,
            "dialFailures": dialFailures, "bufferBytes": bufferBytes, "footprintBytes": footprintBytes,
            "uptimeMillis": uptimeMillis,
        ]
    }
}
