package org.vmesskit.test

import org.junit.jupiter.api.Assertions.fail
import org.vmesskit.NetworkInfo
import org.vmesskit.Platform
import org.vmesskit.VMessException
import java.util.Collections
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds

/** The longest that a test waits for what must come. */
val WAIT: Duration = 20.seconds

/** What a call throws, which it must. */
suspend fun failure(call: suspend () -> Any?): VMessException = try {
    fail("it answered ${call()}")
} catch (error: VMessException) {
    error
}

/** A network that is as good as any. */
fun network(id: Int): NetworkInfo = NetworkInfo(
    id.toULong(), 0u, listOf("192.0.2.7"), listOf("192.0.2.1"), true, false, null, false, true, false,
)

/** A platform that remembers the sockets that it was asked to protect, and does [protect] with them. */
class Host(private val protect: (Int) -> Boolean = { true }) : Platform {
    val sockets: MutableList<Int> = Collections.synchronizedList(mutableListOf())

    override fun protectSocket(fd: Int): Boolean {
        sockets += fd
        return protect(fd)
    }
}
