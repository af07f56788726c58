package org.vmesskit.test

import java.io.File
import java.net.InetAddress
import java.net.Socket
import java.util.concurrent.TimeUnit

/** A real V2Ray server on a loopback port, whose traffic all goes to the loopback port [target]. */
class V2Ray(target: Int) : AutoCloseable {
    val port: Int = closedPort()
    private val config: File = File.createTempFile("v2ray", ".json")
    private val process: Process

    init {
        config.writeText(
            """{"log": {"loglevel": "none"}, "inbounds": [{"protocol": "vmess", "listen": "127.0.0.1", "port": $port,
                "settings": {"clients": [{"id": "${Configs.ID}", "alterId": 0}]}}],
                "outbounds": [{"protocol": "freedom", "settings": {"redirect": "127.0.0.1:$target"}}]}""",
        )
        process = ProcessBuilder("v2ray", "-config", config.path).redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.DISCARD).start()
        val deadline = System.nanoTime() + 20_000_000_000L
        while (!listens()) {
            check(process.isAlive && System.nanoTime() < deadline) { "V2Ray does not listen" }
            Thread.sleep(20)
        }
    }

    override fun close() {
        process.destroy()
        process.waitFor(5, TimeUnit.SECONDS)
        config.delete()
    }

    private fun listens(): Boolean =
        runCatching { Socket(InetAddress.getLoopbackAddress(), port).close() }.isSuccess
}
