package org.vmesskit.test

import java.net.BindException
import java.net.DatagramPacket
import java.net.DatagramSocket
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import kotlin.concurrent.thread

/** Echoes TCP and UDP on one loopback port, until it is closed. */
class EchoServer : AutoCloseable {
    private val udp: DatagramSocket
    private val tcp: ServerSocket
    val port: Int

    init {
        // A port that is free for one may be taken for the other.
        val sockets = (1..PORTS_TRIED).firstNotNullOf { pair() }
        udp = sockets.first
        tcp = sockets.second
        port = udp.localPort
        thread(isDaemon = true) {
            runCatching {
                while (true) {
                    val packet = DatagramPacket(ByteArray(65_536), 65_536)
                    udp.receive(packet)
                    udp.send(DatagramPacket(packet.data, packet.length, packet.socketAddress))
                }
            }
        }
        serve(tcp) { it.getInputStream().copyTo(it.getOutputStream()) }
    }

    override fun close() {
        udp.close()
        tcp.close()
    }

    private companion object {
        const val PORTS_TRIED = 50

        fun pair(): Pair<DatagramSocket, ServerSocket>? {
            val here = InetAddress.getLoopbackAddress()
            val udp = DatagramSocket(0, here)
            return try {
                udp to ServerSocket(udp.localPort, 50, here)
            } catch (_: BindException) {
                udp.close()
                null
            }
        }
    }
}

/** A TCP server that does [work] with each connection, and then closes it. */
class TcpServer(work: (Socket) -> Unit) : AutoCloseable {
    private val socket = ServerSocket(0, 50, InetAddress.getLoopbackAddress())
    val port: Int = socket.localPort

    init {
        serve(socket, work)
    }

    override fun close(): Unit = socket.close()
}

/** A time server whose clock is [ahead] of ours by so many seconds. */
class TimeServer(ahead: Long) : AutoCloseable {
    private val socket = DatagramSocket(0, InetAddress.getLoopbackAddress())
    val port: Int = socket.localPort

    init {
        thread(isDaemon = true) {
            runCatching {
                while (true) {
                    val asked = DatagramPacket(ByteArray(512), 512)
                    socket.receive(asked)
                    val seconds = System.currentTimeMillis() / 1_000 + ahead + SECONDS_BEFORE_1970
                    val answer = java.nio.ByteBuffer.allocate(48).put(0x24).put(2).position(24)
                        .put(asked.data, 40, 8).putInt(seconds.toInt()).putInt(0).putInt(seconds.toInt()).putInt(0)
                    socket.send(DatagramPacket(answer.array(), 48, asked.socketAddress))
                }
            }
        }
    }

    override fun close(): Unit = socket.close()
}

private const val SECONDS_BEFORE_1970 = 2_208_988_800L

private fun serve(socket: ServerSocket, work: (Socket) -> Unit) {
    thread(isDaemon = true) {
        runCatching {
            while (true) {
                val connection = socket.accept()
                thread(isDaemon = true) { runCatching { connection.use(work) } }
            }
        }
    }
}

/** A port that nobody listens on. */
fun closedPort(): Int = ServerSocket(0, 1, InetAddress.getLoopbackAddress()).use { it.localPort }

/** Configs that the tests share. */
object Configs {
    const val ID: String = "b831381d-6324-4d53-ad4f-8cda48b30811"

    /** No tun, and nothing to dial. */
    const val QUIET: String = """{"outbounds": [{"protocol": "blackhole"}]}"""

    /** A tun with [settings] whose traffic goes to the loopback port [port], whatever its address. */
    fun redirected(port: Int, settings: String = "{}"): String =
        """{"inbounds": [{"protocol": "tun", "settings": $settings}],
            "outbounds": [{"protocol": "freedom", "settings": {"redirect": "127.0.0.1:$port"}}]}"""

    /** A VMess server on a loopback port, behind a tun if [tun]. */
    fun vmess(port: Int, tun: Boolean = false): String {
        val inbounds = if (tun) """{"protocol": "tun"}""" else ""
        return """{"inbounds": [$inbounds], "outbounds": [{"protocol": "vmess", "settings": {"vnext": [
            {"address": "127.0.0.1", "port": $port, "users": [{"id": "$ID"}]}]}}]}"""
    }

    /** A SOCKS proxy on a loopback port. */
    fun socks(port: Int): String =
        """{"inbounds": [{"protocol": "socks", "listen": "127.0.0.1", "port": $port}],
            "outbounds": [{"protocol": "freedom"}]}"""

    /** A VMess server on a loopback port, with one user, who is counted. */
    fun server(port: Int): String =
        """{"stats": {}, "policy": {"levels": {"0": {"statsUserUplink": true, "statsUserDownlink": true}}},
            "inbounds": [{"tag": "server", "protocol": "vmess", "listen": "127.0.0.1", "port": $port,
            "settings": {"clients": [{"id": "$ID", "email": "ann@example.com"}]}}],
            "outbounds": [{"protocol": "freedom"}]}"""
}
