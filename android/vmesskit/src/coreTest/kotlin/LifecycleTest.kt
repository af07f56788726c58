package org.vmesskit.test

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.takeWhile
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import org.vmesskit.Event
import org.vmesskit.FdOwnership
import org.vmesskit.NewUser
import org.vmesskit.Platform
import org.vmesskit.State
import org.vmesskit.Tunnel
import org.vmesskit.VMessException
import java.lang.ref.WeakReference
import java.util.UUID
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds

class LifecycleTest {
    @Test
    fun startsTellsAndStops(): Unit = runBlocking {
        val tunnel = Tunnel(Configs.QUIET)
        assertEquals(State.Idle, tunnel.state.value)
        val events = async(start = CoroutineStart.UNDISPATCHED) {
            tunnel.events.takeWhile { it != Event.StateChanged(State.Stopped(null)) }.toList()
        }
        tunnel.start()
        assertEquals(State.Connected, withTimeout(WAIT) { tunnel.state.first { it == State.Connected } })
        assertEquals(State.Connected, tunnel.status().state)
        assertEquals(emptyList<Any>(), tunnel.connections())
        assertFalse(tunnel.closeConnection(1u))
        assertFalse(tunnel.reload(Configs.QUIET).tunChanged)
        tunnel.stop()
        assertEquals(State.Stopped(null), withTimeout(WAIT) { tunnel.state.first { it is State.Stopped } })
        val states = withTimeout(WAIT) { events.await() }.filterIsInstance<Event.StateChanged>().map { it.state }
        assertEquals(listOf(State.Starting, State.Connected, State.Stopping), states)
        tunnel.stop()
        tunnel.requestStop()
    }

    @Test
    fun twoCollectorsSeeTheSameEvents(): Unit = runBlocking {
        val tunnel = Tunnel(Configs.QUIET)
        val collectors = List(2) {
            async(start = CoroutineStart.UNDISPATCHED) {
                tunnel.events.takeWhile { it != Event.StateChanged(State.Stopped(null)) }.toList()
            }
        }
        tunnel.start()
        tunnel.stop()
        val (first, second) = collectors.map { withTimeout(WAIT) { it.await() } }
        assertTrue(first.isNotEmpty())
        assertEquals(first, second)
    }

    @Test
    fun aCollectorThatHangsKeepsNoStateBack(): Unit = runBlocking {
        val tunnel = Tunnel(Configs.QUIET)
        val hung = launch(start = CoroutineStart.UNDISPATCHED) { tunnel.events.collect { delay(3_600.seconds) } }
        tunnel.start()
        repeat(2 * Tunnel.EVENT_BUFFER) { tunnel.networkChanged(if (it % 2 == 0) null else network(it)) }
        tunnel.stop()
        withTimeout(WAIT) { tunnel.state.first { it is State.Stopped } }
        hung.cancelAndJoin()
    }

    @Test
    fun aSecondStartIsRefused(): Unit = runBlocking {
        val tunnel = Tunnel(Configs.QUIET)
        tunnel.start()
        assertTrue(failure { tunnel.start() } is VMessException.AlreadyRunning)
        assertEquals(State.Connected, tunnel.status().state)
        tunnel.stop()
        assertTrue(failure { tunnel.start() } is VMessException.Stopped)
    }

    @Test
    fun aCancelledStartIsAStop(): Unit = runBlocking {
        repeat(20) { round ->
            val pair = TunPair()
            val tunnel = Tunnel(Configs.redirected(9))
            val start = launch(Dispatchers.Default, CoroutineStart.UNDISPATCHED) { tunnel.start(pair.handle()) }
            delay((round % 4).milliseconds)
            start.cancelAndJoin()
            tunnel.stop()
            assertTrue(pair.deviceCloses(), "the owned descriptor is closed, in round $round")
            pair.close()
        }
    }

    @Test
    fun stopsDuringAStart(): Unit = runBlocking {
        repeat(20) {
            val tunnel = Tunnel(Configs.QUIET)
            val start = async(Dispatchers.Default) { runCatching { tunnel.start() } }
            tunnel.requestStop()
            start.await().exceptionOrNull()?.let { error -> assertTrue(error is VMessException.Stopped, "$error") }
            withTimeout(WAIT) { tunnel.state.first { it is State.Stopped } }
        }
    }

    @Test
    fun everyOwnershipIsKept(): Unit = runBlocking {
        for (ownership in FdOwnership.entries) {
            TunPair().use { pair ->
                val tunnel = Tunnel(Configs.redirected(9))
                tunnel.start(pair.handle(ownership))
                assertTrue(TunPair.isOpen(pair.device))
                tunnel.stop()
                val borrowed = ownership == FdOwnership.BORROWED
                assertEquals(borrowed, TunPair.isOpen(pair.device), "$ownership")
                if (borrowed) LibC.C.close(pair.device)
                assertTrue(pair.deviceCloses())
            }
        }
    }

    @Test
    fun aRefusedStartClosesWhatItOwns(): Unit = runBlocking {
        val stopped = Tunnel(Configs.redirected(9)).also { it.stop() }
        TunPair().use { pair ->
            assertTrue(failure { stopped.start(pair.handle()) } is VMessException.Stopped)
            assertTrue(pair.deviceCloses())
        }
        TunPair().use { pair ->
            assertTrue(failure { stopped.setTun(pair.handle(FdOwnership.BORROWED)) } is VMessException)
            assertTrue(TunPair.isOpen(pair.device), "a borrowed one stays open")
            LibC.C.close(pair.device)
        }
    }

    @Test
    fun twoTunnelsLiveSideBySide(): Unit = runBlocking {
        val first = Tunnel(Configs.QUIET)
        val second = Tunnel(Configs.QUIET)
        first.start()
        second.start()
        first.stop()
        assertEquals(State.Connected, second.status().state)
        second.stop()
    }

    @Test
    fun aThousandLivesLeaveNothingBehind(): Unit = runBlocking {
        repeat(20) { life() }
        val (threads, descriptors) = settled()
        repeat(1_000) { life() }
        withTimeout(WAIT) {
            while (settled().first > threads || settled().second > descriptors + 8) delay(20)
        }
    }

    @Test
    fun aThousandCalls(): Unit = runBlocking {
        val tunnel = Tunnel(Configs.QUIET)
        tunnel.start()
        repeat(1_000) {
            assertEquals(State.Connected, tunnel.status().state)
            assertEquals(0uL, tunnel.stats().dials)
            tunnel.connections()
        }
        tunnel.stop()
    }

    @Test
    fun closeEndsWithoutWaiting(): Unit = runBlocking {
        val pair = TunPair()
        val tunnel = Tunnel(Configs.redirected(9))
        tunnel.start(pair.handle())
        tunnel.close()
        tunnel.close()
        withTimeout(WAIT) { tunnel.state.first { it is State.Stopped } }
        assertTrue(pair.deviceCloses())
        pair.close()
        tunnel.stop()
        tunnel.requestStop()
        withTimeout(WAIT) { while (runCatching { tunnel.stats() }.isSuccess) delay(10) }
        assertThrows<VMessException.Stopped> { tunnel.stats() }
    }

    @Test
    fun aTunnelThatIsCollectedStops(): Unit = runBlocking {
        val pair = TunPair()
        val weak = abandoned(pair)
        withTimeout(30.seconds) {
            while (weak.get() != null) {
                System.gc()
                delay(20)
            }
        }
        val closed = CompletableDeferred<Boolean>()
        closed.complete(pair.deviceCloses(30_000))
        assertTrue(closed.await(), "nobody holds the tunnel, so it has ended")
        pair.close()
    }

    @Test
    fun aPlatformIsReleasedByAStop(): Unit = runBlocking {
        val weak = stopped()
        withTimeout(30.seconds) {
            while (weak.get() != null) {
                System.gc()
                delay(20)
            }
        }
        assertNull(weak.get())
    }

    /** Starts a tunnel and forgets it. */
    private suspend fun abandoned(pair: TunPair): WeakReference<Tunnel> {
        val tunnel = Tunnel(Configs.redirected(9))
        tunnel.start(pair.handle())
        return WeakReference(tunnel)
    }

    /** Starts and stops a tunnel with a platform. */
    private suspend fun stopped(): WeakReference<Platform> {
        val platform = Host()
        val tunnel = Tunnel(Configs.QUIET, platform = platform)
        tunnel.start()
        tunnel.stop()
        return WeakReference(platform)
    }

    private suspend fun life() {
        Tunnel(Configs.QUIET).use {
            it.start()
            it.stop()
        }
    }

    /** The library's threads, and the process's descriptors. */
    private fun settled(): Pair<Int, Int> = TunPair.threads() to TunPair.descriptors()

    @Test
    fun usersOfAServer(): Unit = runBlocking {
        val server = Tunnel(Configs.server(closedPort()))
        server.start()
        assertEquals(listOf("ann@example.com"), server.users("server").map { it.email })
        server.addUser("server", NewUser(UUID.randomUUID().toString(), 0u, 0u, "bob@example.com"))
        assertEquals(2, server.users("server").size)
        assertTrue(server.removeUser("server", "BOB@example.com"))
        assertFalse(server.removeUser("server", "bob@example.com"))
        assertThrows<VMessException.Misuse> { server.users("none") }
        assertTrue(server.counters(reset = true).none { it.value > 0uL }, "nobody has connected yet")
        server.stop()
    }
}
