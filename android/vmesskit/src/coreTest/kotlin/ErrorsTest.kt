package org.vmesskit.test

import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import org.vmesskit.FdOwnership
import org.vmesskit.Framing
import org.vmesskit.Stage
import org.vmesskit.State
import org.vmesskit.TunHandle
import org.vmesskit.Tunnel
import org.vmesskit.TunnelOptions
import org.vmesskit.VMess
import org.vmesskit.VMessException
import org.vmesskit.ffi.ErrorKind
import org.vmesskit.ffi.FfiConverterTypeTunnelError
import org.vmesskit.ffi.TunnelException
import org.vmesskit.translated
import java.io.File
import java.net.ServerSocket
import kotlin.time.Duration.Companion.milliseconds

/** Every kind of error, made by the library where it can be, and its texts as an app reads them. */
class ErrorsTest {
    @Test
    fun configInvalid() {
        val error = assertThrows<VMessException.ConfigInvalid> { Tunnel("""{"outbounds": [{"protocol": "vmes"}]}""") }
        assertEquals("outbounds[0].protocol", error.path)
        assertShown(error, 1)
        assertTrue("vmess" in error.hint, error.toString())
    }

    @Test
    fun serverUnreachable(): Unit = runBlocking {
        val error = checked(Configs.vmess(closedPort())) as VMessException.ServerUnreachable
        assertEquals(Stage.Connect, error.stage)
        assertShown(error, 2)
    }

    @Test
    fun tlsFailed(): Unit = runBlocking {
        TcpServer {
            it.getInputStream().read(ByteArray(4_096))
            it.getOutputStream().write("HTTP/1.1 400 Bad Request\r\n\r\n".toByteArray())
            it.getInputStream().readBytes()
        }.use { server ->
            val tls = Configs.vmess(server.port).replace("}]}]}}", "}]}]}, \"streamSettings\": {\"security\": \"tls\"}}")
            val error = checked(tls) as VMessException.TlsFailed
            assertShown(error, 3)
            assertTrue("TLS" in error.reason && error.hint.isNotEmpty(), error.toString())
        }
    }

    @Test
    fun clockSkew(): Unit = runBlocking {
        TimeServer(ahead = 3_600).use { clock ->
            TcpServer { it.getInputStream().read(ByteArray(4_096)) }.use { server ->
                val sntp = ", \"vmesskit\": {\"sntp\": {\"server\": \"127.0.0.1:${clock.port}\"}}}"
                val tunnel = Tunnel(Configs.vmess(server.port).removeSuffix("}") + sntp)
                tunnel.start()
                // A wrong clock is known only once a time server was asked, which a refusal leads to.
                var error = failure { tunnel.check() }
                withTimeout(WAIT) {
                    while (error !is VMessException.ClockSkew) {
                        delay(50)
                        error = failure { tunnel.check() }
                    }
                }
                assertTrue((error as VMessException.ClockSkew).seconds in -3_610..-3_590, error.toString())
                assertShown(error, 5)
                tunnel.stop()
            }
        }
    }

    @Test
    fun authRejected(): Unit = runBlocking {
        TcpServer { it.getInputStream().read(ByteArray(4_096)) }.use { server ->
            assertShown(checked(Configs.vmess(server.port)) as VMessException.AuthRejected, 4)
        }
    }

    @Test
    fun protectFailed(): Unit = runBlocking {
        val refusing = Host { false }
        val error = checked(Configs.vmess(closedPort()), refusing) as VMessException.ProtectFailed
        assertShown(error, 6)
        assertTrue("refused" in error.reason, error.toString())
        assertEquals(1, refusing.sockets.size)
    }

    @Test
    fun aCallbackThatThrowsIsARefusalWithItsReason(): Unit = runBlocking {
        val throwing = Host { throw SecurityException("no such socket") }
        val error = checked(Configs.vmess(closedPort()), throwing) as VMessException.ProtectFailed
        assertTrue("no such socket" in error.reason, error.toString())
    }

    @Test
    fun tunIo(): Unit = runBlocking {
        val file = File.createTempFile("vmesskit", null)
        val descriptor = LibC.C.open(file.path, 2)
        val tunnel = Tunnel(Configs.redirected(9))
        val handle = TunHandle(descriptor, 1500u, FdOwnership.OWNED, Framing.RAW_IP)
        assertShown(failure { tunnel.start(handle) } as VMessException.TunIo, 7)
        file.delete()
    }

    @Test
    fun tunGone(): Unit = runBlocking {
        val pair = TunPair()
        val tunnel = Tunnel(Configs.redirected(9))
        tunnel.start(pair.handle())
        pair.close()
        val stopped = withTimeout(WAIT) { tunnel.state.first { it is State.Stopped } } as State.Stopped
        assertShown(stopped.error as VMessException.TunGone, 8)
        assertTrue(tunnel.status().lastError is VMessException.TunGone)
    }

    @Test
    fun resourceLimit(): Unit = runBlocking {
        ServerSocket(0).use { taken ->
            val tunnel = Tunnel(Configs.socks(taken.localPort))
            val error = failure { tunnel.start() } as VMessException.ResourceLimit
            assertEquals("listening port", error.what)
            assertShown(error, 9)
        }
    }

    @Test
    fun alreadyRunningAndStopped(): Unit = runBlocking {
        val tunnel = Tunnel(Configs.QUIET)
        tunnel.start()
        assertShown(failure { tunnel.start() } as VMessException.AlreadyRunning, 10)
        tunnel.stop()
        assertShown(failure { tunnel.start() } as VMessException.Stopped, 11)
    }

    @Test
    fun timeout(): Unit = runBlocking {
        TcpServer { it.getInputStream().readBytes() }.use { server ->
            val tunnel = Tunnel(Configs.vmess(server.port))
            tunnel.start()
            val error = failure { tunnel.check(300.milliseconds) } as VMessException.Timeout
            assertEquals("check", error.what)
            assertShown(error, 12)
            tunnel.stop()
        }
    }

    @Test
    fun aCallbackThatBlocksTimesTheStopOut(): Unit = runBlocking {
        val blocking = Host {
            Thread.sleep(3_000)
            true
        }
        val tunnel = Tunnel(Configs.vmess(closedPort()), platform = blocking)
        tunnel.start()
        assertTrue(failure { tunnel.check(200.milliseconds) } is VMessException.Timeout)
        assertTrue(failure { tunnel.stop(200.milliseconds) } is VMessException.Timeout)
        withTimeout(WAIT) { tunnel.state.first { it is State.Stopped } }
    }

    @Test
    fun misuse(): Unit = runBlocking {
        assertShown(assertThrows<VMessException.Misuse> { Tunnel(Configs.QUIET, TunnelOptions(1uL)) }, 13)
        val tunnel = Tunnel(Configs.redirected(9))
        val handle = TunHandle(-1, null, FdOwnership.BORROWED, Framing.RAW_IP)
        assertTrue(failure { tunnel.start(handle) } is VMessException.Misuse)
    }

    @Test
    fun aStopOfACallbackIsMisuse(): Unit = runBlocking {
        var seen: Throwable? = null
        lateinit var tunnel: Tunnel
        val host = Host {
            seen = runCatching { runBlocking { tunnel.stop() } }.exceptionOrNull()
            true
        }
        tunnel = Tunnel(Configs.vmess(closedPort()), platform = host)
        tunnel.start()
        runCatching { tunnel.check(500.milliseconds) }
        tunnel.stop()
        assertNotNull(seen)
        assertTrue(seen is VMessException.Misuse, "$seen")
    }

    @Test
    fun unsupported() {
        val tunnel = Tunnel(Configs.QUIET)
        assertShown(assertThrows<VMessException.Unsupported> { tunnel.selectOutbound("group", "tag") }, 14)
    }

    /** The kinds that no test can bring the library to: read from the bytes in which it would send them. */
    @Test
    fun kindsThatTheLibraryDoesNotMakeHere() {
        val expected = mapOf(
            ErrorKind.Internal to 15,
            ErrorKind.Unknown(99u) to 99,
        )
        for ((kind, code) in expected) {
            val sent = TunnelException.Failed(kind, "text", "hint", "reason", "")
            val bytes = FfiConverterTypeTunnelError.lower(sent)
            val error = assertThrows<VMessException> { translated { throw FfiConverterTypeTunnelError.lift(bytes) } }
            assertEquals(code, error.code)
            assertEquals(listOf("text", "hint", "reason"), listOf(error.text, error.hint, error.reason))
        }
    }

    @Test
    fun shareLinks() {
        assertThrows<VMessException.ConfigInvalid> { VMess.parseShareLink("vmess://?") }
        val link = VMess.toShareLink(Configs.vmess(443))
        assertTrue(Configs.ID in VMess.parseShareLink(link))
        assertTrue(VMess.validateConfig(Configs.vmess(443)).none { it.severity == org.vmesskit.Severity.ERROR })
        assertTrue(VMess.formatConfig(Configs.QUIET).contains("blackhole"))
        assertTrue(VMess.version.isNotEmpty())
    }

    /** What a check of the path to the server says. */
    private suspend fun checked(config: String, host: Host = Host()): VMessException {
        val tunnel = Tunnel(config, platform = host)
        tunnel.start()
        val error = failure { tunnel.check() }
        tunnel.stop()
        return error
    }

    private fun assertShown(error: VMessException, code: Int) {
        assertEquals(code, error.code)
        assertTrue(error.text.isNotBlank() && error.text == error.message)
        println("$error")
    }
}
