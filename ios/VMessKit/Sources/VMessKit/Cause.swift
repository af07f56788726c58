import VMessKitCore

/// A cause of a fault: what it may be, how sure that is in percent, and what to do, for a person.
public struct Cause: Sendable, Equatable {
    /// What it may be.
    public let kind: CauseKind
    /// How sure, in percent.
    public let confidence: Int
    /// What it is and what to do, for a person.
    public let text: String

    init(_ cause: VMessKitCore.Cause) {
        kind = CauseKind(cause.kind)
        confidence = Int(cause.confidence)
        text = cause.text
    }
}

/// What may be at fault.
public enum CauseKind: Sendable, Equatable {
    /// The id is not known to the server, or its alterId differs.
    case id
    /// This device's clock is off by more than VMess bears.
    case clock
    /// The server is gone, or something between drops the traffic.
    case serverGone
    /// The server refuses the security that is configured.
    case security
    /// The target behind the server does not answer.
    case target
    /// A cause that this version does not know.
    case unknown(code: Int)

    init(_ kind: VMessKitCore.CauseKind) {
        switch kind {
        case .id: self = .id
        case .clock: self = .clock
        case .serverGone: self = .serverGone
        case .security: self = .security
        case .target: self = .target
        case .unknown(let code): self = .unknown(code: Int(code))
        }
    }
}

/// Which step of setting up a connection to a server failed.
public enum Stage: Sendable, Hashable {
    /// The server's name was being resolved.
    case resolve
    /// The socket was being connected.
    case connect
    /// The TLS handshake was under way.
    case tls
    /// The HTTP upgrade, or what the transport has in its place, was under way.
    case upgrade
    /// The VMess header had been sent, its answer had not come.
    case vmess
    /// A step that this version does not know.
    case unknown(name: String)

    init(_ stage: VMessKitCore.Stage) {
        switch stage {
        case .resolve: self = .resolve
        case .connect: self = .connect
        case .tls: self = .tls
        case .upgrade: self = .upgrade
        case .vmess: self = .vmess
        case .unknown(let name): self = .unknown(name: name)
        }
    }

    /// The name under which it goes to another process.
    var name: String {
        switch self {
        case .resolve: return "resolve"
        case .connect: return "connect"
        case .tls: return "tls"
        case .upgrade: return "upgrade"
        case .vmess: return "vmess"
        case .unknown(let name): return name
        }
    }

    init(name: String) {
        let known: [Stage] = [.resolve, .connect, .tls, .upgrade, .vmess]
        self = known.first { $0.name == name } ?? .unknown(name: name)
    }
}
