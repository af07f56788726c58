package org.vmesskit.test

import org.vmesskit.LogLevel
import org.vmesskit.Transport
import org.vmesskit.VMessException
import org.vmesskit.host.TunDevice
import org.vmesskit.host.TunPlan
import org.vmesskit.host.VpnConfiguration
import org.vmesskit.host.VpnHost
import java.util.Collections
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit

/** A phone whose tun devices are socket pairs. */
class FakeHost(@Volatile var asked: suspend () -> VpnConfiguration) : VpnHost {
    /** The devices in the order of their making. */
    val devices: MutableList<FakeDevice> = Collections.synchronizedList(mutableListOf())
    val ends: LinkedBlockingQueue<Result<VMessException?>> = LinkedBlockingQueue()
    val sockets: MutableList<Int> = Collections.synchronizedList(mutableListOf())
    val logs: MutableList<String> = Collections.synchronizedList(mutableListOf())

    @Volatile
    var permitted: Boolean = true

    /** What happens between the making of a device and the answer. */
    @Volatile
    var onEstablish: () -> Unit = {}

    override val canExclude: Boolean = true

    @Volatile
    override var isLockdown: Boolean = false

    override suspend fun configuration(): VpnConfiguration = asked()

    override fun establish(plan: TunPlan): TunDevice? {
        if (!permitted) return null
        return FakeDevice(plan, devices.count { !it.closed }).also {
            devices += it
            onEstablish()
        }
    }

    override fun protectSocket(fd: Int): Boolean = sockets.add(fd)

    override fun findOwner(transport: Transport, source: String, destination: String): Int? = null

    override fun log(level: LogLevel, text: String) {
        logs += text
    }

    override fun ended(error: VMessException?) {
        ends += Result.success(error)
    }

    /** Waits for the end of a run, and says why. */
    fun awaitEnd(): VMessException? =
        (ends.poll(20, TimeUnit.SECONDS) ?: error("the run did not end: $logs")).getOrNull()
}

/** A device of [FakeHost]; [before] is how many others were open when it was made. */
class FakeDevice(val plan: TunPlan, val before: Int) : TunDevice {
    val pair: TunPair = TunPair()

    @Volatile
    var closed: Boolean = false
    override val fd: Int = pair.device

    override fun close() {
        if (!closed) LibC.C.close(fd)
        closed = true
    }
}
