package org.vmesskit.smoke

import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import org.vmesskit.Platform
import org.vmesskit.State
import org.vmesskit.Tunnel
import org.vmesskit.VMessException

private const val QUIET = """{"outbounds": [{"protocol": "blackhole"}]}"""
private const val SERVER = """{"outbounds": [{"protocol": "vmess", "settings": {"vnext": [{"address": "127.0.0.1",
    "port": 9, "users": [{"id": "b831381d-6324-4d53-ad4f-8cda48b30811"}]}]}}]}"""

/** What must still work after R8 has been over it: calls, coroutines, records, callbacks, errors. */
fun main(): Unit = runBlocking {
    val tunnel = Tunnel(QUIET)
    tunnel.start()
    tunnel.state.first { it == State.Connected }
    check(tunnel.stats().dials == 0uL)
    tunnel.stop()
    tunnel.state.first { it is State.Stopped }

    val refusing = object : Platform {
        override fun protectSocket(fd: Int): Boolean = false
    }
    val dialling = Tunnel(SERVER, platform = refusing)
    dialling.start()
    val error = runCatching { dialling.check() }.exceptionOrNull()
    check(error is VMessException.ProtectFailed) { "$error" }
    dialling.stop()

    val broken = runCatching { Tunnel("{}") }.exceptionOrNull()
    check(broken is VMessException.ConfigInvalid && broken.path.isNotEmpty()) { "$broken" }
    println("the shrunk library works: ${error.text}")
}
