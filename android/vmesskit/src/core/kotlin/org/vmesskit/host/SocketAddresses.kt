package org.vmesskit.host

import org.vmesskit.VMessException
import java.net.InetSocketAddress

/** Addresses with ports, as the library writes them. */
public object SocketAddresses {
    /** Reads `192.0.2.1:443` or `[2001:db8::1]:443`; null for anything else. */
    public fun parse(text: String): InetSocketAddress? = try {
        val host = text.substringBeforeLast(':', "").removePrefix("[").removeSuffix("]")
        val port = text.substringAfterLast(':').toIntOrNull()
        if (port == null || port !in 0..65_535) null else InetSocketAddress(Prefix.literal(host), port)
    } catch (_: VMessException) {
        null
    }
}
