package org.vmesskit

import org.vmesskit.ffi.PlatformException
import java.util.concurrent.CancellationException

/**
 * What the library asks of its host, on threads of the library's own. An answer that takes too long is discarded.
 *
 * The library holds the platform until the tunnel has stopped, where no garbage collector looks: a platform must hold
 * what it belongs to, such as a service, weakly. A platform may call [Tunnel.requestStop], never [Tunnel.stop].
 */
public interface Platform {
    /** Keeps the socket [fd] out of the tunnel, within 2 s; false, or an exception, makes the dial fail. */
    public fun protectSocket(fd: Int): Boolean

    /** Resolves a server's name outside the tunnel, within 5 s; null: not offered, the library asks by itself. */
    public fun resolve(host: String, network: NetworkInfo?): List<String>? = null

    /** The uid of the app that a flow belongs to; null: unknown. Addresses are such as `192.0.2.1:443`. */
    public fun findOwner(transport: Transport, source: String, destination: String): Int? = null
}

/** A [Platform] as the bindings want it: every exception is a refusal with a reason. */
internal class PlatformAdapter(private val platform: Platform) : org.vmesskit.ffi.Platform {
    override fun protectSocket(fd: Int): Unit = guarded {
        if (!platform.protectSocket(fd)) throw PlatformException.Refused("the system refused to protect the socket")
    }

    override fun resolve(host: String, network: NetworkInfo?): List<String>? =
        guarded { platform.resolve(host, network) }

    override fun findOwner(network: Transport, source: String, destination: String): UInt? =
        guarded { platform.findOwner(network, source, destination)?.takeIf { it >= 0 }?.toUInt() }

    private inline fun <T> guarded(call: () -> T): T = try {
        call()
    } catch (refusal: PlatformException) {
        throw refusal
    } catch (error: CancellationException) {
        throw PlatformException.Refused("cancelled: ${error.message}")
    } catch (@Suppress("TooGenericExceptionCaught") error: Throwable) {
        throw PlatformException.Refused("${error.javaClass.simpleName}: ${error.message}")
    }
}
