package org.vmesskit.host

import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import org.vmesskit.NetworkInfo
import java.net.Inet4Address
import java.net.Inet6Address
import java.net.InetAddress

/** What the system says a network can do. */
public data class NetworkCapabilitiesFacts(
    public val isVpn: Boolean,
    public val metered: Boolean,
    public val validated: Boolean,
    public val captivePortal: Boolean,
)

/** What the system says of a network's link. */
public data class NetworkLinkFacts(
    public val index: Int,
    public val addresses: List<InetAddress>,
    public val dns: List<InetAddress>,
    public val nat64Prefix: InetAddress? = null,
)

/**
 * Follows the best network that is no VPN, from the system's callbacks, which come in any order and repeat themselves.
 * A network counts when both its capabilities and its link are known.
 */
public class NetworkTracker {
    private val lock = Any()
    private var id: Long? = null
    private var capabilities: NetworkCapabilitiesFacts? = null
    private var link: NetworkLinkFacts? = null
    private val state = MutableStateFlow<NetworkInfo?>(null)

    /** The network below the tunnel; null: none, or none known yet. Equal ones follow each other never. */
    public val network: StateFlow<NetworkInfo?> = state.asStateFlow()

    /** The network [id] is the best one now. */
    public fun available(id: Long): Unit = synchronized(lock) {
        if (this.id == id) return
        this.id = id
        capabilities = null
        link = null
    }

    /** What the network [id] can do has become known, or has changed. */
    public fun capabilities(id: Long, facts: NetworkCapabilitiesFacts): Unit = synchronized(lock) {
        if (facts.isVpn) return lost(id)
        available(id)
        capabilities = facts
        publish()
    }

    /** The link of the network [id] has become known, or has changed. */
    public fun link(id: Long, facts: NetworkLinkFacts): Unit = synchronized(lock) {
        available(id)
        link = facts
        publish()
    }

    /** The network [id] is gone. */
    public fun lost(id: Long): Unit = synchronized(lock) {
        if (this.id != id) return
        this.id = null
        capabilities = null
        link = null
        state.value = null
    }

    private fun publish() {
        val id = id ?: return
        val capabilities = capabilities ?: return
        val link = link ?: return
        val usable = link.addresses.filterNot { it.isLoopbackAddress || it.isLinkLocalAddress }
        state.value = NetworkInfo(
            id = id.toULong(),
            index = link.index.coerceAtLeast(0).toUInt(),
            addresses = usable.map(::text),
            dns = link.dns.filterNot { it.isLoopbackAddress || it.isLinkLocalAddress }.map(::text),
            hasV4 = usable.any { it is Inet4Address },
            hasV6 = usable.any { it is Inet6Address },
            nat64Prefix = link.nat64Prefix?.let(::text),
            metered = capabilities.metered,
            validated = capabilities.validated,
            captivePortal = capabilities.captivePortal,
        )
    }

    /** An address without a zone, which the library does not take. */
    private fun text(address: InetAddress): String = address.hostAddress.orEmpty().substringBefore('%')
}
