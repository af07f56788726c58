package org.vmesskit.test

import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import org.vmesskit.MeasureRequest
import org.vmesskit.NewUser
import org.vmesskit.Severity
import org.vmesskit.Tunnel
import org.vmesskit.VMess
import org.vmesskit.VMessException
import kotlin.time.Duration.Companion.microseconds
import kotlin.time.Duration.Companion.seconds

/** What an app does before it has a tunnel: subscriptions, and measuring what they list. */
class MeasureTest {
    @Test
    fun eachConfigGetsItsOwnFigureOrError(): Unit = runBlocking {
        val web = TcpServer {
            it.getInputStream().read(ByteArray(4_096))
            it.getOutputStream().write("HTTP/1.1 204 No Content\r\n\r\n".toByteArray())
        }
        val port = closedPort()
        val server = Tunnel(Configs.server(port))
        server.start()
        val configs = listOf(Configs.vmess(port), Configs.vmess(closedPort()), "{", Configs.QUIET)
        val request = MeasureRequest(configs, "http://127.0.0.1:${web.port}/generate_204", 10_000u, 2u)
        val host = Host()
        val (good, dead, broken, quiet) = VMess.measure(request, host)
        assertNull(good.error)
        assertTrue(requireNotNull(good.latency) in 1.microseconds..10.seconds)
        assertTrue(dead.latency == null && dead.error is VMessException.ServerUnreachable)
        assertTrue(broken.error is VMessException.ConfigInvalid)
        assertTrue(quiet.error is VMessException.Misuse)
        assertTrue(host.sockets.size >= 2, "the sockets were protected")
        val wrong = failure { VMess.measure(request.copy(url = "gopher://127.0.0.1")) } as VMessException.Misuse
        assertTrue(wrong.hint.isNotEmpty())
        server.stop()
        web.close()
    }

    @Test
    fun cancellingEndsIt(): Unit = runBlocking {
        TcpServer { it.getInputStream().readBytes() }.use { silent ->
            val request = MeasureRequest(listOf(Configs.vmess(silent.port)), "http://192.0.2.1", 600_000u, 1u)
            val host = Host()
            val job = launch { VMess.measure(request, host) }
            withTimeout(WAIT) {
                while (host.sockets.isEmpty()) delay(10)
                job.cancel()
                job.join()
            }
        }
    }

    @Test
    fun subscriptionsAreRead() {
        val body = "vmess://${Configs.ID}@server.example:443?type=tcp#home\nss://nothing\nvmess://broken\n"
        val found = VMess.parseSubscription(body.toByteArray())
        assertEquals(listOf("home"), found.servers.map { it.name })
        assertTrue(VMess.validateConfig(found.servers[0].config).none { it.severity == Severity.ERROR })
        assertEquals(
            listOf(Severity.WARNING to "line 2", Severity.ERROR to "line 3"),
            found.diagnostics.map { it.severity to it.path },
        )
        val page = assertThrows<VMessException.ConfigInvalid> { VMess.parseSubscription("<html>".toByteArray()) }
        assertTrue("web page" in page.text)
        assertThrows<VMessException.ConfigInvalid> { VMess.parseSubscription(ByteArray(0)) }
    }

    @Test
    fun usersComeAndGo(): Unit = runBlocking {
        val server = Tunnel(Configs.server(closedPort()))
        server.start()
        server.addUser("server", NewUser("another id", 0u, 0u, "bob@example.com"))
        assertEquals(listOf("ann@example.com", "bob@example.com"), server.users("server").map { it.email })
        val again = failure { server.addUser("server", NewUser("a third id", 0u, 0u, "BOB@example.com")) }
        assertTrue(again is VMessException.ConfigInvalid)
        assertTrue(server.removeUser("server", "bob@example.com"))
        assertEquals(1, server.users("server").size)
        assertTrue(failure { server.users("nobody") } is VMessException.Misuse)
        assertTrue(server.counters(reset = true).isEmpty())
        server.stop()
    }
}
