package org.vmesskit.test

import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.vmesskit.State
import org.vmesskit.Tunnel

/** Real packets through a descriptor, the stack, a socket that was protected, and back. */
class TrafficTest {
    private val payload = ByteArray(1_000) { it.toByte() }

    @Test
    fun pingsAreAnswered(): Unit = runBlocking {
        running(Configs.redirected(9)) { _, pair ->
            assertTrue(pair.send(Packets.ping(TcpClient.CLIENT, "192.0.2.9", 77, payload)))
            val reply = pair.receive { Packets.protocol(it) == Packets.ICMP }
            assertNotNull(reply)
            assertTrue(Packets.isSound(reply!!))
            assertEquals(0, Packets.body(reply)[0])
            assertArrayEquals(payload, Packets.payload(reply))
        }
    }

    @Test
    fun datagramsComeBack(): Unit = runBlocking {
        EchoServer().use { echo ->
            running(Configs.redirected(echo.port)) { host, pair ->
                assertTrue(pair.send(Packets.udp(TcpClient.CLIENT, 4_000, "192.0.2.9", 7, payload)))
                val reply = pair.receive { Packets.protocol(it) == Packets.UDP }
                assertNotNull(reply)
                assertTrue(Packets.isSound(reply!!))
                assertEquals("192.0.2.9", Packets.source(reply))
                assertArrayEquals(payload, Packets.payload(reply))
                assertTrue(host.sockets.isNotEmpty(), "the socket was protected")
            }
        }
    }

    @Test
    fun streamsComeBack(): Unit = runBlocking {
        EchoServer().use { echo ->
            running(Configs.redirected(echo.port)) { _, pair ->
                val client = TcpClient(pair, 40_000, "192.0.2.9", 80)
                assertTrue(client.connect())
                repeat(20) { assertArrayEquals(payload, client.exchange(payload)) }
            }
        }
    }

    @Test
    fun packetsPassARealServer(): Unit = runBlocking {
        EchoServer().use { echo ->
            V2Ray(echo.port).use { server ->
                running(Configs.vmess(server.port, tun = true)) { host, pair ->
                    val report = tunnel!!.check()
                    assertTrue(report.latencyMicros > 0uL)
                    assertEquals(State.Connected, tunnel!!.status().state)
                    val client = TcpClient(pair, 40_002, "192.0.2.9", 80)
                    assertTrue(client.connect())
                    repeat(10) { assertArrayEquals(payload, client.exchange(payload)) }
                    assertTrue(pair.send(Packets.udp(TcpClient.CLIENT, 4_002, "192.0.2.9", 7, payload)))
                    val reply = pair.receive { Packets.protocol(it) == Packets.UDP }
                    assertArrayEquals(payload, Packets.payload(reply!!))
                    assertTrue(host.sockets.size >= 3)
                }
            }
        }
    }

    @Test
    fun aDialThatIsNotProtectedResetsTheApp(): Unit = runBlocking {
        EchoServer().use { echo ->
            running(Configs.redirected(echo.port), Host { false }) { _, pair ->
                val client = TcpClient(pair, 40_001, "192.0.2.9", 80)
                if (client.connect()) {
                    client.exchange(payload)
                    assertTrue(client.isReset())
                }
            }
        }
    }

    @Test
    fun aSwappedDeviceKeepsTheFlow(): Unit = runBlocking {
        EchoServer().use { echo ->
            TunPair().use { second ->
                running(Configs.redirected(echo.port)) { _, first ->
                    first.send(Packets.udp(TcpClient.CLIENT, 4_001, "192.0.2.9", 7, payload))
                    assertNotNull(first.receive { Packets.protocol(it) == Packets.UDP })
                    tunnel!!.setTun(second.handle())
                    assertTrue(first.deviceCloses(), "the old one closes after the swap")
                    second.send(Packets.udp(TcpClient.CLIENT, 4_001, "192.0.2.9", 7, payload))
                    assertNotNull(second.receive { Packets.protocol(it) == Packets.UDP })
                    assertEquals(1uL, tunnel!!.stats().udpTotal, "it is the same flow")
                }
            }
        }
    }

    private var tunnel: Tunnel? = null

    private suspend fun running(config: String, host: Host = Host(), work: suspend (Host, TunPair) -> Unit) {
        TunPair().use { pair ->
            val tunnel = Tunnel(config, platform = host)
            this.tunnel = tunnel
            tunnel.start(pair.handle())
            work(host, pair)
            tunnel.stop()
        }
    }
}
