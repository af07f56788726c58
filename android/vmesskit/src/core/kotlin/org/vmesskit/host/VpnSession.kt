package org.vmesskit.host

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.channels.BufferOverflow
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.MutableSharedFlow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.SharedFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asSharedFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.dropWhile
import kotlinx.coroutines.flow.filter
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.merge
import kotlinx.coroutines.flow.receiveAsFlow
import kotlinx.coroutines.joinAll
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeoutOrNull
import org.vmesskit.Event
import org.vmesskit.FdOwnership
import org.vmesskit.Framing
import org.vmesskit.LogLevel
import org.vmesskit.MemoryPressure
import org.vmesskit.NetworkInfo
import org.vmesskit.Platform
import org.vmesskit.State
import org.vmesskit.Stats
import org.vmesskit.TunHandle
import org.vmesskit.Transport
import org.vmesskit.Tunnel
import org.vmesskit.VMessException
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds

/**
 * The life of a VPN in a service that is started and stopped in any order: it asks for the configuration, sets the tun
 * device up, runs one [Tunnel] after the other on it, follows the network, and puts everything away. It names no
 * Android type, and none of its functions blocks.
 *
 * A run is what lies between a [start] and a [stop]; the next one begins when the last one has put its things away.
 *
 * @param host what is asked; it must not hold a service strongly, since the library is behind the session.
 * @param network the network below the tunnel.
 */
public class VpnSession(
    private val host: VpnHost,
    private val network: StateFlow<NetworkInfo?>,
    private val backoff: () -> Backoff = { Backoff() },
) {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    private val lock = Any()
    private var current: Run? = null

    /** The runs that have not put everything away yet. */
    private val unfinished = mutableSetOf<Job>()

    @Volatile
    private var idle = false
    private val mutableState = MutableStateFlow<State>(State.Idle)
    private val mutableError = MutableStateFlow<VMessException?>(null)
    private val mutableEvents =
        MutableSharedFlow<Event>(extraBufferCapacity = Tunnel.EVENT_BUFFER, onBufferOverflow = BufferOverflow.DROP_OLDEST)

    /** The state of the VPN: that of its tunnel, and [State.Degraded] while it waits to try again. */
    public val state: StateFlow<State> = mutableState.asStateFlow()

    /** The newest error, until a start. */
    public val lastError: StateFlow<VMessException?> = mutableError.asStateFlow()

    /** The events of its tunnels. */
    public val events: SharedFlow<Event> = mutableEvents.asSharedFlow()

    /** The newest log lines of its tunnels. */
    public val logs: LogBuffer = LogBuffer()

    /** Whether a run is under way that nobody has asked to stop. */
    public val isActive: Boolean
        get() = synchronized(lock) { current != null }

    /** The tunnel that runs now, to be asked what a [Tunnel] can be asked. */
    public val tunnel: Tunnel?
        get() = synchronized(lock) { current?.tunnel }

    /** Starts, or has a run that is under way ask for its configuration again and take over what has changed. */
    public fun start(): Unit = synchronized<Unit>(lock) {
        current?.let {
            it.reconfigure.trySend(Unit)
            return
        }
        val before = unfinished.toList()
        val run = Run()
        current = run
        mutableError.value = null
        mutableState.value = State.Starting
        val job = scope.launch {
            withTimeoutOrNull(PATIENCE) { before.joinAll() }
            life(run)
        }
        run.job = job
        unfinished += job
        // Also told of a run that was stopped before it had begun.
        job.invokeOnCompletion { ended(run, job) }
    }

    /** Asks the run to stop, wherever it is, and returns at once. */
    public fun stop() {
        val run = synchronized(lock) { current.also { current = null } } ?: return
        run.tunnel?.requestStop()
        run.job?.cancel()
    }

    /** Tells that the device dozes, or that it no longer does. */
    public fun idle(idle: Boolean) {
        this.idle = idle
        quietly { if (idle) it.pause() else it.wake() }
    }

    /** Tells how short memory is. */
    public fun memoryPressure(level: MemoryPressure): Unit = quietly { it.memoryPressure(level) }

    /** The tunnel's counters; null while there is none. */
    public fun stats(): Stats? = try {
        tunnel?.stats()
    } catch (_: VMessException) {
        null
    }

    private fun quietly(call: (Tunnel) -> Unit) {
        try {
            tunnel?.let(call)
        } catch (error: VMessException) {
            host.log(LogLevel.DEBUG, "$error")
        }
    }

    /** One run, from the first try to the last thing put away. */
    private suspend fun life(run: Run) {
        try {
            val backoff = backoff()
            while (true) {
                val error = failureOf { attempt(run, backoff) } ?: break
                // The tunnel hears of a stop before the run does, and says that it was stopped.
                if (synchronized(lock) { current !== run }) break
                report(error)
                if (!host.isLockdown) {
                    run.failure = error
                    break
                }
                run.mistrust(error)
                wait(run, backoff.next(), error)
            }
        } finally {
            run.device?.close()
        }
    }

    /** Tells that a run is over, unless another has been started meanwhile. */
    private fun ended(run: Run, job: Job) {
        synchronized(lock) {
            unfinished -= job
            if (current != null && current !== run) return
            current = null
            mutableState.value = State.Stopped(run.failure)
        }
        host.ended(run.failure)
    }

    /** Runs one tunnel to its end, and throws what ends it. */
    private suspend fun attempt(run: Run, backoff: Backoff) {
        mutableState.value = State.Starting
        val configuration = host.configuration()
        currentCoroutineContext().ensureActive()
        val options = configuration.options.copy(network = network.value ?: configuration.options.network)
        val tunnel = Tunnel(configuration.json, options, SessionPlatform(host))
        try {
            adopt(run, tunnel, configuration)
            serve(run, tunnel, backoff)
        } finally {
            withContext(NonCancellable) {
                synchronized(lock) { run.tunnel = null }
                failureOf { tunnel.stop(PATIENCE) }?.let(::report)
                tunnel.close()
            }
        }
    }

    /** Gives the run its tunnel, for [stop] to find; a run that has been stopped meanwhile ends here. */
    private fun adopt(run: Run, tunnel: Tunnel, configuration: VpnConfiguration): Unit = synchronized(lock) {
        if (current !== run) throw CancellationException("stopped during the start")
        run.tunnel = tunnel
        run.configuration = configuration
    }

    private suspend fun serve(run: Run, tunnel: Tunnel, backoff: Backoff): Unit = coroutineScope {
        val helpers = mutableListOf<Job>()
        helpers += launch(start = CoroutineStart.UNDISPATCHED) { tunnel.events.collect(::forward) }
        try {
            val plan = plan(tunnel, run.configuration)
            if (run.device == null || run.plan != plan) run.replace(establish(plan), plan)
            val device = checkNotNull(run.device) { "it has just been set up" }
            tunnel.start(device.handle(plan))
            if (idle) tunnel.pause()
            helpers += launch { network.dropWhile { it == null }.collect { tunnel.networkChanged(it) } }
            helpers += launch { for (asked in run.reconfigure) reconfigure(run, tunnel) }
            helpers += launch { tunnel.state.collect { if (it == State.Connected) backoff.reset() } }
            helpers += launch { tunnel.state.collect { if (it !is State.Stopped) mutableState.value = it } }
            val end = tunnel.state.first { it is State.Stopped } as State.Stopped
            end.error?.let { throw it }
        } finally {
            helpers.forEach { it.cancel() }
        }
    }

    /** Takes over what the app wants now. What fails leaves the tunnel as it is. */
    private suspend fun reconfigure(run: Run, tunnel: Tunnel) {
        val error = failureOf {
            val configuration = host.configuration()
            if (configuration == run.configuration) return
            if (configuration.json != run.configuration?.json) tunnel.reload(configuration.json)
            run.configuration = configuration
            val plan = plan(tunnel, configuration)
            if (plan == run.plan) return
            // The new device first: between two there would be none, and packets would pass beside.
            val device = establish(plan)
            try {
                tunnel.setTun(device.handle(plan))
            } catch (@Suppress("TooGenericExceptionCaught") failed: Throwable) {
                device.close()
                throw failed
            }
            run.replace(device, plan)
        }
        error?.let(::report)
    }

    private fun plan(tunnel: Tunnel, configuration: VpnConfiguration?): TunPlan {
        val settings = tunnel.tunSettings() ?: throw VMessException.ConfigInvalid(
            "the config has no tun inbound, so no packets would reach the tunnel",
            hint = "add {\"protocol\": \"tun\"} to the inbounds",
            path = "inbounds",
        )
        return TunPlan.of(settings, checkNotNull(configuration) { "the tunnel was made of it" }, host.canExclude)
    }

    private suspend fun establish(plan: TunPlan): TunDevice {
        currentCoroutineContext().ensureActive()
        return host.establish(plan) ?: throw VMessException.NotPermitted(
            "the system gave this app no tun device",
            hint = "ask the user for the VPN permission (VpnService.prepare), and stop other VPN apps",
        )
    }

    /** Waits before the next try; a new configuration or another network ends the wait. */
    private suspend fun wait(run: Run, time: Duration, error: VMessException) {
        val before = network.value
        mutableState.value = State.Degraded("trying again in $time: ${error.text}")
        withTimeoutOrNull(time) { merge(run.reconfigure.receiveAsFlow(), network.filter { it != before }).first() }
    }

    private fun forward(event: Event) {
        if (event is Event.Log) logs.add(event.lines)
        mutableEvents.tryEmit(event)
    }

    private fun report(error: VMessException) {
        mutableError.value = error
        host.log(LogLevel.ERROR, "$error")
    }

    /** What is of one run alone. */
    private class Run {
        val reconfigure: Channel<Unit> = Channel(Channel.CONFLATED)
        var job: Job? = null

        @Volatile
        var tunnel: Tunnel? = null

        @Volatile
        var configuration: VpnConfiguration? = null
        var plan: TunPlan? = null
        var device: TunDevice? = null

        /** Why it has ended, if nobody asked for it. */
        @Volatile
        var failure: VMessException? = null

        /** Puts a new device in the place of the old one, which closes after that. */
        fun replace(device: TunDevice, plan: TunPlan) {
            val old = this.device
            this.device = device
            this.plan = plan
            old?.close()
        }

        /** Has a device that has failed replaced at the next try; it stays up until then. */
        fun mistrust(error: VMessException) {
            if (error is VMessException.TunGone || error is VMessException.TunIo) plan = null
        }
    }

    private companion object {
        /** How long things may take to be put away. */
        val PATIENCE: Duration = 10.seconds

        /** The device stays ours: it must outlive a tunnel that fails. */
        fun TunDevice.handle(plan: TunPlan) =
            TunHandle(fd, plan.mtu.toUInt(), FdOwnership.BORROWED, Framing.RAW_IP)

        /** What [call] fails with; being cancelled is no failure. */
        inline fun failureOf(call: () -> Unit): VMessException? = try {
            call()
            null
        } catch (error: CancellationException) {
            throw error
        } catch (error: VMessException) {
            error
        } catch (error: LinkageError) {
            VMessException.Internal(
                "the native library cannot be used",
                hint = "see that the app ships libvmesskit_uniffi.so and JNA's library for this device",
                reason = "$error",
                cause = error,
            )
        } catch (@Suppress("TooGenericExceptionCaught") error: Exception) {
            VMessException.HostFailed(
                "the app's own code failed",
                hint = "see the cause",
                reason = "$error",
                cause = error,
            )
        }
    }
}

/** What the library asks during a session. */
private class SessionPlatform(private val host: VpnHost) : Platform {
    override fun protectSocket(fd: Int): Boolean = host.protectSocket(fd)

    override fun findOwner(transport: Transport, source: String, destination: String): Int? =
        host.findOwner(transport, source, destination)
}
