import Foundation

/// The life of a VPN in a packet tunnel provider: it asks for the configuration, has the device set up, runs a `Tunnel` on
/// it, follows the network, and puts everything away. It names no type of NetworkExtension, and none of its functions
/// blocks.
///
/// A run is what lies between a `start` and a `stop`; the next one may begin when the last one has put its things away.
public final class VpnSession: Sendable {
    /// How long things may take to be put away, in seconds.
    static let patience: TimeInterval = 5

    private struct State {
        var run: Run?
        var isAsleep = false
        var lastError: VMessError?
    }

    /// The newest log lines.
    public let logs = LogBuffer()

    private let host: any VpnHost
    private let tracker: NetworkTracker
    private let state = Locked(State())
    private let stateHub = EventHub<TunnelState>(initial: .idle, capacity: 16)
    private let eventHub = EventHub<TunnelEvent>(capacity: Tunnel.eventBuffer)

    /// Makes a session.
    ///
    /// - Parameter host: what is asked; it must hold a provider weakly.
    /// - Parameter tracker: the network below the tunnel; `networkChanged` says when to look at it.
    public init(host: any VpnHost, tracker: NetworkTracker) {
        self.host = host
        self.tracker = tracker
    }

    /// The state of the VPN: that of its tunnel.
    public var current: TunnelState { stateHub.latest ?? .idle }

    /// The states: first the one now, then each change.
    public var states: AsyncStream<TunnelState> { stateHub.stream() }

    /// What happens from now on, of all its tunnels.
    public var events: AsyncStream<TunnelEvent> { eventHub.stream() }

    /// The newest error, until a start.
    public var lastError: VMessError? { state.withLock { $0.lastError } }

    /// Whether a run is under way that nobody has asked to stop.
    public var isActive: Bool { state.withLock { $0.run?.isWanted ?? false } }

    /// The tunnel that runs now, to be asked what a `Tunnel` can be asked.
    public var tunnel: Tunnel? { state.withLock { $0.run?.tunnel } }

    /// Starts, and returns when packets are carried; the network is not asked.
    ///
    /// - Throws: `VMessError`: `alreadyRunning`; `stopped` if it was stopped meanwhile; and what the start has met.
    public func start() async throws {
        let run = Run()
        let isFirst = state.withLock { state in
            guard state.run == nil else { return false }
            state.run = run
            state.lastError = nil
            return true
        }
        guard isFirst else { throw VMessError(.alreadyRunning, "the VPN has been started before") }
        stateHub.send(.starting)
        do {
            try await withTaskCancellationHandler {
                try await bringUp(run)
            } onCancel: { [self] in
                requestStop()
            }
        } catch {
            let failure = await putAway(run, after: error)
            throw failure ?? VMessError(.stopped, "the VPN was stopped during its start")
        }
    }

    /// Asks the run to stop, wherever it is, and returns at once.
    public func requestStop() {
        let tunnel = state.withLock { state in
            state.run?.isWanted = false
            return state.run?.tunnel
        }
        tunnel?.requestStop()
    }

    /// Stops, and returns when everything is put away, or after some seconds if the app's own code hangs.
    public func stop() async {
        requestStop()
        await withTaskGroup(of: Void.self) { group in
            group.addTask { [self] in
                _ = await states.first { state in
                    (state.isStopped || state == .idle) && self.state.withLock { $0.run == nil }
                }
            }
            group.addTask { try? await Task.sleep(nanoseconds: UInt64((VpnSession.patience + 1) * 1e9)) }
            await group.next()
            group.cancelAll()
        }
    }

    /// Asks the app for its configuration again and takes over what has changed; flows that exist live on. What fails
    /// leaves the tunnel as it was.
    ///
    /// - Throws: `VMessError`.
    public func reload() async throws {
        let running = state.withLock { state in state.run.flatMap { run in run.tunnel.map { (run, $0) } } }
        guard let (run, tunnel) = running else { throw VpnSession.notRunning }
        do {
            let configuration = try await host.configuration()
            let before = state.withLock { _ in run.configuration }
            guard configuration != before else { return }
            if configuration.json != before?.json { _ = try await tunnel.reload(config: configuration.json) }
            state.withLock { _ in run.configuration = configuration }
            let plan = try plan(tunnel, configuration)
            guard plan != state.withLock({ _ in run.plan }) else { return }
            // The system takes the device down and up again, and tells nobody that the VPN is away meanwhile.
            host.reassert(true)
            defer { host.reassert(current == .noNetwork) }
            try await host.apply(plan)
            let device = try host.device(plan)
            do { try await tunnel.setTun(device.handle(plan)) } catch {
                device.close()
                throw error
            }
            let old = state.withLock { _ in run.replace(device, plan) }
            old?.close()
        } catch {
            throw report(VMessError(any: error))
        }
    }

    /// The network below the tunnel has changed: the tracker knows it.
    public func networkChanged() {
        quietly { try $0.networkChanged(tracker.network) }
    }

    /// Tells that the device goes to sleep, or that it is awake again.
    public func sleep(_ isAsleep: Bool) {
        state.withLock { $0.isAsleep = isAsleep }
        quietly { isAsleep ? $0.pause() : $0.wake() }
    }

    /// Tells how short memory is.
    public func memoryPressure(_ level: MemoryPressure) {
        quietly { $0.memoryPressure(level) }
    }

    static let notRunning = VMessError(.notRunning, "the VPN is not running", hint: "start it first")

    private func quietly(_ call: (Tunnel) throws -> Void) {
        guard let tunnel else { return }
        do { try call(tunnel) } catch { host.log(.debug, "\(error)") }
    }

    private func bringUp(_ run: Run) async throws {
        let configuration = try await host.configuration()
        try checkWanted(run)
        let options = TunnelOptions(
            memoryLimitBytes: configuration.options.memoryLimitBytes,
            network: tracker.network ?? configuration.options.network, log: configuration.options.log)
        let tunnel = try Tunnel(config: configuration.json, options: options, platform: SessionPlatform())
        let events = tunnel.events
        try adopt(run, tunnel, configuration)
        Task { [weak self] in await self?.forward(events) }
        let plan = try plan(tunnel, configuration)
        try await host.apply(plan)
        try checkWanted(run)
        let device = try host.device(plan)
        _ = state.withLock { _ in run.replace(device, plan) }
        let states = tunnel.states
        try await tunnel.start(tun: device.handle(plan))
        try checkWanted(run)
        if state.withLock({ $0.isAsleep }) { tunnel.pause() }
        Task { await follow(run, states) }
    }

    /// Gives the run its tunnel, for `requestStop` to find; a run that has been stopped meanwhile ends here.
    private func adopt(_ run: Run, _ tunnel: Tunnel, _ configuration: VpnConfiguration) throws {
        state.withLock { _ in
            run.tunnel = tunnel
            run.configuration = configuration
        }
        try checkWanted(run)
    }

    private func checkWanted(_ run: Run) throws {
        guard state.withLock({ _ in run.isWanted }) else { throw CancellationError() }
    }

    private func plan(_ tunnel: Tunnel, _ configuration: VpnConfiguration) throws -> TunPlan {
        guard let settings = tunnel.tunSettings else {
            throw VMessError(
                .configInvalid, "the config has no tun inbound, so no packets would reach the tunnel",
                hint: #"add {"protocol": "tun"} to the inbounds"#, path: "inbounds")
        }
        return try TunPlan(settings, configuration)
    }

    private func forward(_ events: AsyncStream<TunnelEvent>) async {
        for await event in events {
            if case .log(let lines) = event { logs.add(lines) }
            eventHub.send(event)
        }
    }

    /// Passes the tunnel's states on, to its end; then puts the run away.
    private func follow(_ run: Run, _ states: AsyncStream<TunnelState>) async {
        var isReasserting = false
        var failure: VMessError?
        for await state in states {
            if case .stopped(let error) = state {
                failure = error
                break
            }
            stateHub.send(state)
            guard (state == .noNetwork) != isReasserting else { continue }
            isReasserting = state == .noNetwork
            host.reassert(isReasserting)
        }
        let wasWanted = self.state.withLock { _ in run.isWanted }
        let error = await putAway(run, after: failure)
        if wasWanted { host.ended(error ?? VMessError(.stopped, "the tunnel was stopped")) }
    }

    /// Puts everything of a run away. Answers the error that it has ended with; nil if it was asked to stop.
    private func putAway(_ run: Run, after error: (any Error)?) async -> VMessError? {
        let (tunnel, device, wasWanted) = state.withLock { _ in (run.tunnel, run.device, run.isWanted) }
        let failure = wasWanted && !(error is CancellationError) ? error.map { report(VMessError(any: $0)) } : nil
        do { try await tunnel?.stop(timeout: VpnSession.patience) } catch { report(VMessError(any: error)) }
        device?.close()
        state.withLock { state in
            run.tunnel = nil
            run.device = nil
            if state.run === run { state.run = nil }
        }
        stateHub.send(.stopped(failure))
        return failure
    }

    @discardableResult
    private func report(_ error: VMessError) -> VMessError {
        state.withLock { $0.lastError = error }
        host.log(.error, "\(error)")
        return error
    }
}

/// What is of one run alone; its fields are read and written under the session's lock.
private final class Run: @unchecked Sendable {
    var isWanted = true
    var tunnel: Tunnel?
    var configuration: VpnConfiguration?
    var plan: TunPlan?
    var device: (any TunDevice)?

    /// Puts a new device in the place of the old one, which is to be closed.
    func replace(_ device: any TunDevice, _ plan: TunPlan) -> (any TunDevice)? {
        defer {
            self.device = device
            self.plan = plan
        }
        return self.device
    }
}

extension TunDevice {
    /// The descriptor stays the system's: the tunnel works on a duplicate.
    fileprivate func handle(_ plan: TunPlan) -> TunHandle {
        TunHandle(fd: fd, mtu: UInt32(clamping: plan.mtu), ownership: .borrowed, framing: framing)
    }
}

/// What the library asks during a session. A provider's sockets are out of its own tunnel by themselves.
private final class SessionPlatform: Platform {
    func resolve(_ host: String, network: NetworkInfo?) throws -> [String]? {
        try SystemResolver.resolve(host)
    }
}
