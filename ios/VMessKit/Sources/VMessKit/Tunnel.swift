import Foundation
import VMessKitCore

/// A tunnel. Single-use: after a stop it cannot be started again. Its functions may be called on any thread, and those
/// that wait block none; cancelling the task of a `start` is a stop.
///
/// `stop` ends it and waits; letting go of it ends it without waiting.
public final class Tunnel: Sendable {
    /// How many events a slow reader may be behind.
    public static let eventBuffer = 256

    private let ffi: VMessKitCore.Tunnel
    private let pump: Pump

    /// Makes a tunnel, without doing any IO.
    ///
    /// - Parameter config: V2Ray's JSON.
    /// - Throws: `VMessError`: `configInvalid` with the path of the first error that needs no IO; `misuse` if the
    ///   options are out of their range.
    public init(
        config: String, options: TunnelOptions = TunnelOptions(), platform: (any Platform)? = nil
    ) throws {
        let adapter = platform.map(PlatformAdapter.init)
        ffi = try translated { try VMessKitCore.Tunnel(config: config, options: options, platform: adapter) }
        pump = Pump(ffi)
        pump.start()
    }

    deinit {
        ffi.requestStop()
    }

    /// The state now.
    public var state: TunnelState { pump.states.latest ?? .idle }

    /// The states: first the one now, then each change. A reader that is behind sees the newest, so always the last.
    public var states: AsyncStream<TunnelState> { pump.states.stream() }

    /// What happens from now on; every stream has all of it. A reader that is `eventBuffer` behind loses the oldest.
    public var events: AsyncStream<TunnelEvent> { pump.events.stream() }

    /// How to set the tun device up; nil if the config has no tun inbound.
    public var tunSettings: TunSettings? { ffi.tunSettings() }

    /// Starts, and returns when the tun device and the listeners are up; the network is not asked.
    ///
    /// - Parameter tun: the device; nil for a proxy or a server alone.
    /// - Throws: `VMessError`: `alreadyRunning` the second time, `stopped` after a stop, and what the device and the
    ///   listeners meet; `CancellationError` if the task was cancelled, which has stopped the tunnel.
    public func start(tun: TunHandle? = nil) async throws {
        do {
            // The library takes a descriptor that it is to own also when it is told to stop before.
            try await withTaskCancellationHandler {
                try await translated { [ffi] in try await ffi.start(tun: tun) }
            } onCancel: { [ffi] in
                ffi.requestStop()
            }
        } catch {
            try Task.checkCancellation()
            throw error
        }
        try Task.checkCancellation()
    }

    /// Swaps the tun device under the live flows; the old one is closed after the new one is in place.
    public func setTun(_ tun: TunHandle) async throws {
        try await translated { [ffi] in try await ffi.setTun(tun: tun) }
    }

    /// Proves the path to the server, or throws why it does not work.
    ///
    /// - Parameter timeout: in seconds.
    public func check(timeout: TimeInterval = 10) async throws -> CheckReport {
        try await translated { [ffi] in try await ffi.check(timeoutMillis: timeout.millis) }
    }

    /// Stops, and returns when every descriptor, task and callback is gone. Any number of times.
    ///
    /// - Parameter timeout: in seconds.
    /// - Throws: `VMessError`, `timeout` if a callback does not return; all else is gone then.
    public func stop(timeout: TimeInterval = 10) async throws {
        try await translated { [ffi] in try await ffi.stop(timeoutMillis: timeout.millis) }
    }

    /// Tells the tunnel to stop. Never blocks, and is legal anywhere, callbacks included.
    public func requestStop() { ffi.requestStop() }

    /// Replaces the config, all or nothing; flows that exist live on as they are.
    public func reload(config: String) async throws -> ReloadReport {
        try await translated { [ffi] in try await ffi.reload(config: config) }
    }

    /// Chooses the outbound of a group.
    public func selectOutbound(group: String, tag: String) throws {
        try translated { try ffi.selectOutbound(group: group, tag: tag) }
    }

    /// Tells which network is below the tunnel now; nil: none.
    public func networkChanged(_ network: NetworkInfo?) throws {
        try translated { try ffi.networkChanged(network: network) }
    }

    /// Corrects the clock: so many seconds are added to the system's UTC.
    public func setClockOffset(seconds: Int64) { ffi.setClockOffset(seconds: seconds) }

    /// Tells that the device goes to sleep: timers rest, traffic is never refused.
    public func pause() { ffi.pause() }

    /// Tells that the device is awake again.
    public func wake() { ffi.wake() }

    /// Tells how short memory is.
    public func memoryPressure(_ level: MemoryPressure) { ffi.memoryPressure(level: level) }

    /// The state, for how long it has been so, and the newest error. Never blocks.
    public var status: TunnelStatus { TunnelStatus(ffi.status()) }

    /// The counters. Never blocks.
    public var stats: TunnelStats { ffi.stats() }

    /// The counters that the config's policy asks for, under V2Ray's names.
    ///
    /// - Parameter reset: sets them to 0 in the same step.
    public func counters(reset: Bool = false) -> [Counter] { ffi.counters(reset: reset) }

    /// The open connections.
    public func connections() async throws -> [ConnectionInfo] {
        try await translated { [ffi] in try await ffi.connections() }
    }

    /// Closes one connection; false if there is none with the id any more.
    @discardableResult
    public func closeConnection(id: UInt64) async throws -> Bool {
        try await translated { [ffi] in try await ffi.closeConnection(id: id) }
    }

    /// The users of a VMess inbound, by its tag, with their counters.
    public func users(inbound: String) throws -> [UserInfo] {
        try translated { try ffi.users(inbound: inbound) }
    }

    /// Adds a user to a VMess inbound.
    public func addUser(inbound: String, user: NewUser) throws {
        try translated { try ffi.addUser(inbound: inbound, user: user) }
    }

    /// Removes a user of a VMess inbound by e-mail; false if there is none.
    @discardableResult
    public func removeUser(inbound: String, email: String) throws -> Bool {
        try translated { try ffi.removeUser(inbound: inbound, email: email) }
    }
}

/// Hands a tunnel's events out, to its end. It does not hold the `Tunnel`, which may go meanwhile.
private final class Pump: Sendable {
    let states: EventHub<TunnelState>
    let events = EventHub<TunnelEvent>(capacity: Tunnel.eventBuffer)
    private let ffi: VMessKitCore.Tunnel

    init(_ ffi: VMessKitCore.Tunnel) {
        self.ffi = ffi
        states = EventHub(initial: TunnelState(ffi.status().state), capacity: 16)
    }

    /// Starts the pump; it ends by itself after the last event.
    func start() {
        Task.detached { [self] in
            while let event = await ffi.nextEvent().map(TunnelEvent.init) {
                if case .stateChanged(let state) = event { states.send(state) }
                events.send(event)
            }
            states.finish()
            events.finish()
        }
    }
}

extension TimeInterval {
    /// Seconds as the library's milliseconds; what is out of range is the nearest that is not.
    fileprivate var millis: UInt32 {
        let millis = (self * 1000).rounded(.up)
        return millis.isNaN || millis <= 0 ? 0 : millis >= Double(UInt32.max) ? UInt32.max : UInt32(millis)
    }
}
