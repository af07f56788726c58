package org.vmesskit

import com.sun.jna.internal.Cleaner
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.channels.BufferOverflow
import kotlinx.coroutines.flow.MutableSharedFlow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.SharedFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asSharedFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.launch
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import org.vmesskit.ffi.Tunnel as FfiTunnel

/**
 * A tunnel. Single-use: after a stop it cannot be started again. Its functions may be called on any thread; the
 * suspending ones block none, and cancelling [start] is a stop.
 *
 * [stop] ends it and waits; [close] and being garbage-collected end it without waiting.
 *
 * @param config V2Ray's JSON.
 * @throws VMessException.ConfigInvalid with the path of the first error that needs no IO.
 * @throws VMessException.Misuse if [options] are out of their range.
 */
public class Tunnel @JvmOverloads public constructor(
    config: String,
    options: TunnelOptions = TunnelOptions(),
    platform: Platform? = null,
) : AutoCloseable {
    private val ffi = translated { FfiTunnel(config, options, platform?.let(::PlatformAdapter)) }
    private val pump = Pump(ffi)

    /** The state, from the moment it was made on; it never misses the last one. */
    public val state: StateFlow<State> = pump.state.asStateFlow()

    /** What happens from now on; a collector that is [EVENT_BUFFER] events behind loses the oldest. */
    public val events: SharedFlow<Event> = pump.events.asSharedFlow()

    private val finished: Job = pump.start()

    init {
        // What runs then must not hold this object: neither the pump nor the bindings do.
        val abandoned = ffi
        Cleaner.getCleaner().register(this) { abandoned.stopQuietly() }
    }

    /** How to set the tun device up; null if the config has no tun inbound. */
    public fun tunSettings(): TunSettings? = open { ffi.tunSettings() }

    /**
     * Starts, and returns when the tun device and the listeners are up; the network is not asked.
     *
     * @param tun the device; null for a proxy or a server alone.
     * @throws VMessException.AlreadyRunning the second time.
     * @throws VMessException.Stopped after a stop.
     */
    public suspend fun start(tun: TunHandle? = null): Unit = open { ffi.start(tun) }

    /** Swaps the tun device under the live flows; the old one is closed after the new one is in place. */
    public suspend fun setTun(tun: TunHandle): Unit = open { ffi.setTun(tun) }

    /** Proves the path to the server, or throws why it does not work. */
    public suspend fun check(timeout: Duration = 10.seconds): CheckReport = open { ffi.check(timeout.millis()) }

    /**
     * Stops, and returns when every descriptor, task and callback is gone. Any number of times.
     *
     * @throws VMessException.Timeout if a callback does not return; all else is gone then.
     */
    public suspend fun stop(timeout: Duration = 10.seconds) {
        if (!finished.isCompleted) open { ffi.stop(timeout.millis()) }
    }

    /** Tells the tunnel to stop. Never blocks, and is legal anywhere, callbacks included. */
    public fun requestStop(): Unit = ffi.stopQuietly()

    /** Replaces the config, all or nothing; flows that exist live on as they are. */
    public suspend fun reload(config: String): ReloadReport = open { ffi.reload(config) }

    /** Chooses the outbound of a group. */
    public fun selectOutbound(group: String, tag: String): Unit = open { ffi.selectOutbound(group, tag) }

    /** Tells which network is below the tunnel now; null: none. */
    public fun networkChanged(network: NetworkInfo?): Unit = open { ffi.networkChanged(network) }

    /** Corrects the clock: so much is added to the system's UTC. */
    public fun setClockOffset(offset: Duration): Unit = open { ffi.setClockOffset(offset.inWholeSeconds) }

    /** Tells that the device goes to sleep: timers rest, traffic is never refused. */
    public fun pause(): Unit = open { ffi.pause() }

    /** Tells that the device is awake again. */
    public fun wake(): Unit = open { ffi.wake() }

    /** Tells how short memory is. */
    public fun memoryPressure(level: MemoryPressure): Unit = open { ffi.memoryPressure(level) }

    /** The state, for how long it has been so, and the newest error. Never blocks. */
    public fun status(): Status = open { ffi.status().toVMess() }

    /** The counters. Never blocks. */
    public fun stats(): Stats = open { ffi.stats() }

    /** The open connections. */
    public suspend fun connections(): List<ConnectionInfo> = open { ffi.connections() }

    /** Closes one connection; false if there is none with the id any more. */
    public suspend fun closeConnection(id: ULong): Boolean = open { ffi.closeConnection(id) }

    /**
     * The counters that the config's policy asks for, under V2Ray's names.
     *
     * @param reset sets them to 0 in the same step.
     */
    public fun counters(reset: Boolean = false): List<Counter> = open { ffi.counters(reset) }

    /** The users of a VMess inbound, by its tag, with their counters. */
    public fun users(inbound: String): List<UserInfo> = open { ffi.users(inbound) }

    /** Adds a user to a VMess inbound. */
    public fun addUser(inbound: String, user: NewUser): Unit = open { ffi.addUser(inbound, user) }

    /** Removes a user of a VMess inbound by e-mail; false if there is none. */
    public fun removeUser(inbound: String, email: String): Boolean = open { ffi.removeUser(inbound, email) }

    /** Ends the tunnel without waiting, and gives its memory back when it has ended. Any number of times. */
    override fun close() {
        requestStop()
        finished.invokeOnCompletion { ffi.close() }
    }

    /** Runs a call; the bindings' word for a closed object becomes [VMessException.Stopped]. */
    private inline fun <T> open(call: () -> T): T = try {
        translated(call)
    } catch (error: IllegalStateException) {
        if (error is java.util.concurrent.CancellationException) throw error
        throw VMessException.Stopped("the tunnel has been closed", reason = error.message.orEmpty())
    }

    public companion object {
        /** How many events a slow collector may be behind. */
        public const val EVENT_BUFFER: Int = 256
    }
}

/** Hands a tunnel's events out, to its end. It does not hold the [Tunnel], which may be collected meanwhile. */
private class Pump(private val ffi: FfiTunnel) {
    val state: MutableStateFlow<State> = MutableStateFlow(ffi.status().state.toVMess())
    val events: MutableSharedFlow<Event> =
        MutableSharedFlow(extraBufferCapacity = Tunnel.EVENT_BUFFER, onBufferOverflow = BufferOverflow.DROP_OLDEST)

    /** Starts the pump; it ends by itself after the last event, which no cancellation keeps it from seeing. */
    fun start(): Job = CoroutineScope(Dispatchers.Default).launch {
        while (true) {
            val event = next() ?: break
            if (event is Event.StateChanged) state.value = event.state
            events.emit(event)
        }
    }

    /** The next event. A library that fails at that has ended: an exception here would end the whole app. */
    private suspend fun next(): Event? = try {
        translated { ffi.nextEvent()?.toVMess() }
    } catch (error: VMessException) {
        if (state.value is State.Stopped) null else Event.StateChanged(State.Stopped(error))
    }
}

/** Tells a tunnel to stop, also one that has been closed. */
private fun FfiTunnel.stopQuietly() {
    try {
        requestStop()
    } catch (_: IllegalStateException) {
        // Closed, thus stopped.
    }
}

private fun Duration.millis(): UInt = coerceIn(0.milliseconds, UInt.MAX_VALUE.toLong().milliseconds)
    .inWholeMilliseconds.toUInt()
