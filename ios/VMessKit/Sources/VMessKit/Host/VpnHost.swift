/// What a `VpnSession` asks of the operating system and of the app. Called on threads of the session's own.
public protocol VpnHost: AnyObject, Sendable {
    /// What the app wants; asked on every start. What it throws ends the start.
    func configuration() async throws -> VpnConfiguration

    /// Has the system set the device up, or set it up anew while the tunnel runs.
    func apply(_ plan: TunPlan) async throws

    /// The device that the system has set up.
    func device(_ plan: TunPlan) throws -> any TunDevice

    /// Tells the system that there is no connection for now, though the VPN goes on; or that there is one again.
    func reassert(_ isReasserting: Bool)

    /// Writes a line where the developer looks.
    func log(_ level: LogLevel, _ text: String)

    /// A run that had started has ended by itself; the error says why.
    func ended(_ error: VMessError)
}

/// A tun device that the system has set up. It is there until it is closed.
public protocol TunDevice: AnyObject, Sendable {
    /// Its descriptor, which stays this object's.
    var fd: Int32 { get }
    /// How packets are framed on it.
    var framing: Framing { get }

    /// Gives it back.
    func close()
}
