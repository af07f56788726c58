package org.vmesskit.test

import android.content.pm.PackageManager
import android.net.IpPrefix
import android.net.Network
import android.net.VpnService
import android.os.ParcelFileDescriptor
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadow.api.Shadow
import org.robolectric.shadows.ShadowVpnService
import java.net.InetAddress
import java.util.Collections

/** What Robolectric leaves out of the VPN service: sockets that are protected, lockdown, the networks below. */
@Implements(VpnService::class)
class VpnShadow : ShadowVpnService() {
    val sockets: MutableList<Int> = Collections.synchronizedList(mutableListOf())
    val underlying: MutableList<List<Network>?> = Collections.synchronizedList(mutableListOf())

    @Implementation
    fun protect(socket: Int): Boolean = sockets.add(socket) && protects

    @Implementation
    fun isLockdownEnabled(): Boolean = lockdown

    @Implementation
    fun setUnderlyingNetworks(networks: Array<Network>?): Boolean = underlying.add(networks?.toList())

    companion object {
        @Volatile
        var protects: Boolean = true

        @Volatile
        var lockdown: Boolean = false
    }
}

/** A builder whose devices are socket pairs, and which remembers what it was asked. */
@Implements(VpnService.Builder::class)
class BuilderShadow {
    val routes: MutableList<String> = mutableListOf()
    val excluded: MutableList<String> = mutableListOf()
    val addresses: MutableList<String> = mutableListOf()
    val dns: MutableList<String> = mutableListOf()
    val allowed: MutableList<String> = mutableListOf()
    val denied: MutableList<String> = mutableListOf()
    val families: MutableList<Int> = mutableListOf()

    // Not named as in the builder: a property's setter would be taken for the builder's.
    var deviceMtu: Int = 0
    var countsAsMetered: Boolean? = null
    var name: String? = null
    lateinit var pair: TunPair

    @Implementation
    fun setSession(session: String): VpnService.Builder = self { name = session }

    @Implementation
    fun setMtu(mtu: Int): VpnService.Builder = self { deviceMtu = mtu }

    @Implementation
    fun addAddress(address: InetAddress, length: Int): VpnService.Builder =
        self { addresses += "${address.hostAddress}/$length" }

    @Implementation
    fun addRoute(address: InetAddress, length: Int): VpnService.Builder =
        self { routes += "${address.hostAddress}/$length" }

    @Implementation
    fun excludeRoute(prefix: IpPrefix): VpnService.Builder = self { excluded += "$prefix" }

    @Implementation
    fun addDnsServer(address: InetAddress): VpnService.Builder = self { dns += address.hostAddress.orEmpty() }

    @Implementation
    fun addAllowedApplication(app: String): VpnService.Builder = self { allowed += installed(app) }

    @Implementation
    fun addDisallowedApplication(app: String): VpnService.Builder = self { denied += installed(app) }

    @Implementation
    fun allowFamily(family: Int): VpnService.Builder = self { families += family }

    @Implementation
    fun setMetered(metered: Boolean): VpnService.Builder = self { countsAsMetered = metered }

    @Implementation
    fun setBlocking(@Suppress("UNUSED_PARAMETER") blocking: Boolean): VpnService.Builder = self { }

    @Implementation
    fun establish(): ParcelFileDescriptor? {
        if (!permitted) return null
        pair = TunPair()
        made += this
        return ParcelFileDescriptor.adoptFd(pair.device)
    }

    private fun installed(app: String): String =
        if (app.startsWith("missing.")) throw PackageManager.NameNotFoundException(app) else app

    private fun self(work: () -> Unit): VpnService.Builder {
        work()
        return checkNotNull(real)
    }

    @org.robolectric.annotation.RealObject
    private var real: VpnService.Builder? = null

    companion object {
        /** The builders that have made a device. */
        val made: MutableList<BuilderShadow> = Collections.synchronizedList(mutableListOf())

        @Volatile
        var permitted: Boolean = true
    }
}

/** A descriptor that is one. */
@Implements(ParcelFileDescriptor::class)
class DescriptorShadow {
    private var number = -1

    @Implementation
    fun getFd(): Int = number

    @Implementation
    fun detachFd(): Int = number.also { number = -1 }

    @Implementation
    fun close() {
        if (number >= 0) LibC.C.close(number)
        number = -1
    }

    companion object {
        @JvmStatic
        @Implementation
        fun adoptFd(number: Int): ParcelFileDescriptor = Shadow.newInstanceOf(ParcelFileDescriptor::class.java)
            .also { Shadow.extract<DescriptorShadow>(it).number = number }
    }
}
