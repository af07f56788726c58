package org.vmesskit.test

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertSame
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.vmesskit.Event
import org.vmesskit.MemoryPressure
import org.vmesskit.NetworkInfo
import org.vmesskit.State
import org.vmesskit.VMessException
import org.vmesskit.host.Backoff
import org.vmesskit.host.VpnConfiguration
import org.vmesskit.host.VpnSession
import java.util.concurrent.atomic.AtomicInteger
import kotlin.time.Duration.Companion.milliseconds

/** A VPN's life, started and stopped in every order, with the real library and devices that move packets. */
class VpnSessionTest {
    private val network = MutableStateFlow<NetworkInfo?>(null)
    private val payload = ByteArray(100) { it.toByte() }

    @Test
    fun runsAndStops(): Unit = runBlocking {
        EchoServer().use { echo ->
            val (host, session) = session { VpnConfiguration(Configs.redirected(echo.port)) }
            session.start()
            session.await(State.Connected)
            assertTrue(session.isActive)
            val device = host.devices.single()
            device.pair.send(Packets.udp(TcpClient.CLIENT, 4_000, "192.0.2.9", 7, payload))
            assertNotNull(device.pair.receive { Packets.protocol(it) == Packets.UDP })
            assertTrue(host.sockets.isNotEmpty())
            assertEquals(1uL, session.stats()!!.udpTotal)
            session.stop()
            assertNull(host.awaitEnd())
            assertEquals(State.Stopped(null), session.state.value)
            assertTrue(device.closed && device.pair.deviceCloses())
        }
    }

    @Test
    fun stopsInEachStateOfAStart(): Unit = runBlocking {
        for (moment in 0..30) {
            val (host, session) = session {
                delay(5)
                VpnConfiguration(Configs.redirected(9))
            }
            session.start()
            delay(moment.milliseconds)
            session.stop()
            assertNull(host.awaitEnd())
            assertFalse(session.isActive)
            assertNull(session.tunnel)
            host.devices.forEach { assertTrue(it.closed && it.pair.deviceCloses(), "after $moment ms") }
        }
    }

    @Test
    fun aStopWhileTheDeviceIsMadeLeavesNone(): Unit = runBlocking {
        val (host, session) = session { VpnConfiguration(Configs.redirected(9)) }
        host.onEstablish = session::stop
        session.start()
        assertNull(host.awaitEnd())
        assertTrue(host.devices.single().closed)
    }

    @Test
    fun aConfigurationThatComesAfterTheStopStartsNothing(): Unit = runBlocking {
        val asked = CompletableDeferred<Unit>()
        val answer = CompletableDeferred<Unit>()
        val (host, session) = session {
            asked.complete(Unit)
            withContext(NonCancellable) { answer.await() }
            VpnConfiguration(Configs.redirected(9))
        }
        session.start()
        asked.await()
        session.stop()
        answer.complete(Unit)
        assertNull(host.awaitEnd())
        assertTrue(host.devices.isEmpty())
    }

    @Test
    fun aStartAfterAStopWaitsForItsEnd(): Unit = runBlocking {
        val (host, session) = session { VpnConfiguration(Configs.redirected(9)) }
        repeat(20) {
            session.start()
            if (it % 2 == 0) session.await(State.Connected)
            session.stop()
        }
        session.start()
        session.await(State.Connected)
        assertEquals(1, host.devices.count { !it.closed })
        assertTrue(host.devices.all { it.before == 0 }, "no device was made while another was up")
        session.stop()
        while (session.state.value !is State.Stopped) host.awaitEnd()
    }

    @Test
    fun aConfigWithoutTunSaysSo(): Unit = runBlocking {
        val (host, session) = session { VpnConfiguration(Configs.QUIET) }
        session.start()
        val error = host.awaitEnd() as VMessException.ConfigInvalid
        assertTrue("tun" in error.hint)
        assertSame(error, session.lastError.value)
    }

    @Test
    fun whatTheAppThrowsIsReported(): Unit = runBlocking {
        val (host, session) = session { throw java.io.IOException("the disk is gone") }
        session.start()
        val error = host.awaitEnd() as VMessException.HostFailed
        assertTrue("the disk is gone" in error.reason)
        assertEquals(State.Stopped(error), session.state.value)
    }

    @Test
    fun aMissingPermissionIsNamed(): Unit = runBlocking {
        val (host, session) = session { VpnConfiguration(Configs.redirected(9)) }
        host.permitted = false
        session.start()
        assertTrue(host.awaitEnd() is VMessException.NotPermitted)
    }

    @Test
    fun aDeviceThatGoesEndsTheRun(): Unit = runBlocking {
        val (host, session) = session { VpnConfiguration(Configs.redirected(9)) }
        session.start()
        session.await(State.Connected)
        host.devices.single().pair.close()
        assertTrue(host.awaitEnd() is VMessException.TunGone)
    }

    @Test
    fun underLockdownItTriesAgainAndTheDeviceStays(): Unit = runBlocking {
        val tries = AtomicInteger()
        val (host, session) = session {
            // The second try meets a port that is taken.
            val port = if (tries.incrementAndGet() in 2..3) taken.localPort else 0
            VpnConfiguration(withSocks(port))
        }
        host.isLockdown = true
        session.start()
        session.await(State.Connected)
        host.devices.single().pair.close()
        withTimeout(WAIT) { session.state.first { it is State.Degraded } }
        assertTrue(session.lastError.value is VMessException.TunGone)
        assertFalse(host.devices.first().closed, "it stays up until there is another")
        withTimeout(WAIT) { session.state.first { tries.get() >= 4 && it == State.Connected } }
        assertEquals(2, host.devices.size, "the new device was kept through the failures")
        assertTrue(host.devices.first().closed)
        assertFalse(host.devices.last().closed)
        session.stop()
        assertNull(host.awaitEnd())
        assertTrue(host.devices.last().closed)
    }

    @Test
    fun anotherNetworkEndsTheWait(): Unit = runBlocking {
        val tries = AtomicInteger()
        val host = FakeHost {
            tries.incrementAndGet()
            VpnConfiguration(Configs.QUIET)
        }
        host.isLockdown = true
        val session = VpnSession(host, network) { Backoff(WAIT * 100) }
        session.start()
        withTimeout(WAIT) { session.state.first { it is State.Degraded } }
        network.value = network(3)
        withTimeout(WAIT) { while (tries.get() < 2) delay(5) }
        session.stop()
        assertNull(host.awaitEnd())
    }

    @Test
    fun aChangeOfAppsSwapsTheDeviceUnderTheFlows(): Unit = runBlocking {
        EchoServer().use { echo ->
            var configuration = VpnConfiguration(Configs.redirected(echo.port))
            val (host, session) = session { configuration }
            session.start()
            session.await(State.Connected)
            val first = host.devices.single()
            first.pair.send(Packets.udp(TcpClient.CLIENT, 4_000, "192.0.2.9", 7, payload))
            assertNotNull(first.pair.receive { Packets.protocol(it) == Packets.UDP })

            configuration = configuration.copy(denyApps = listOf("org.example.bank"))
            session.start()
            assertTrue(first.pair.deviceCloses())
            val second = host.devices[1]
            assertEquals(1, second.before, "the old one was still up")
            assertEquals(listOf("org.example.bank"), second.plan.denyApps)
            second.pair.send(Packets.udp(TcpClient.CLIENT, 4_000, "192.0.2.9", 7, payload))
            assertNotNull(second.pair.receive { Packets.protocol(it) == Packets.UDP })
            assertEquals(1uL, session.stats()!!.udpTotal, "the flow lives on")

            configuration = VpnConfiguration(Configs.redirected(echo.port, """{"mtu": 1400}"""))
            session.start()
            assertTrue(second.pair.deviceCloses())
            assertEquals(1_400, host.devices[2].plan.mtu)

            session.start()
            delay(100)
            assertEquals(3, host.devices.size, "the same again changes nothing")
            session.stop()
            assertNull(host.awaitEnd())
        }
    }

    @Test
    fun aBrokenChangeLeavesAllAsItIs(): Unit = runBlocking {
        var configuration = VpnConfiguration(Configs.redirected(9))
        val (host, session) = session { configuration }
        session.start()
        session.await(State.Connected)
        configuration = VpnConfiguration("{")
        session.start()
        withTimeout(WAIT) { session.lastError.first { it is VMessException.ConfigInvalid } }
        assertEquals(State.Connected, session.state.value)
        assertFalse(host.devices.single().closed)
        session.stop()
        assertNull(host.awaitEnd())
    }

    @Test
    fun theNetworkAndTheEventsPassThrough(): Unit = runBlocking {
        val (host, session) = session { VpnConfiguration(Configs.vmess(closedPort(), tun = true)) }
        session.start()
        session.await(State.Connecting)
        val changed = CompletableDeferred<NetworkInfo>()
        val collector = launch(Dispatchers.Default) {
            session.events.collect { if (it is Event.NetworkChanged) changed.complete(it.network) }
        }
        delay(50)
        network.value = network(7)
        assertEquals(network(7), withTimeout(WAIT) { changed.await() })
        network.value = null
        session.await(State.NoNetwork)
        collector.cancel()
        session.idle(true)
        session.idle(false)
        session.memoryPressure(MemoryPressure.CRITICAL)
        session.stop()
        assertNull(host.awaitEnd())
        session.memoryPressure(MemoryPressure.LOW)
        assertNull(session.stats())
    }

    private val taken = java.net.ServerSocket(0)

    private fun withSocks(port: Int): String {
        val socks = if (port == 0) "" else """, {"protocol": "socks", "listen": "0.0.0.0", "port": $port}"""
        return """{"inbounds": [{"protocol": "tun"}$socks], "outbounds": [{"protocol": "blackhole"}]}"""
    }

    private fun session(asked: suspend () -> VpnConfiguration): Pair<FakeHost, VpnSession> {
        val host = FakeHost(asked)
        return host to VpnSession(host, network) { Backoff(20.milliseconds, 50.milliseconds) }
    }

    private suspend fun VpnSession.await(state: State): State = withTimeout(WAIT) { this@await.state.first { it == state } }
}
