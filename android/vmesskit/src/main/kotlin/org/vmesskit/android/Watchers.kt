package org.vmesskit.android

import android.content.BroadcastReceiver
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.net.ConnectivityManager
import android.net.LinkProperties
import android.net.Network
import android.net.NetworkCapabilities
import android.net.NetworkRequest
import android.net.VpnService
import android.os.Build
import android.os.Handler
import android.os.Looper
import android.os.PowerManager
import android.util.Log
import androidx.annotation.RequiresApi
import org.vmesskit.host.NetworkCapabilitiesFacts
import org.vmesskit.host.NetworkLinkFacts
import org.vmesskit.host.NetworkTracker
import org.vmesskit.host.VpnSession
import java.lang.ref.WeakReference
import java.net.NetworkInterface
import java.net.SocketException

/** What listens to the system while a service lives. */
internal interface Watcher {
    fun register()

    fun unregister()
}

/** Tells a tracker of the best network that is no VPN, and the system that the VPN runs over it. */
internal class NetworkWatcher(service: VpnService, private val tracker: NetworkTracker) : Watcher {
    private val service = WeakReference(service)

    // The application's, since a manager holds the context that it is asked of, and the system the callback.
    private val manager =
        service.applicationContext.getSystemService(Context.CONNECTIVITY_SERVICE) as ConnectivityManager
    private var best: Network? = null

    private val callback = object : ConnectivityManager.NetworkCallback() {
        override fun onAvailable(network: Network) {
            tracker.available(network.networkHandle)
            below(network)
            if (Build.VERSION.SDK_INT < Build.VERSION_CODES.O) ask(network)
        }

        override fun onCapabilitiesChanged(network: Network, capabilities: NetworkCapabilities) {
            tracker.capabilities(network.networkHandle, capabilities.facts())
        }

        override fun onLinkPropertiesChanged(network: Network, link: LinkProperties) {
            tracker.link(network.networkHandle, link.facts())
            below(network)
        }

        override fun onLost(network: Network) {
            tracker.lost(network.networkHandle)
            if (network == best) below(null)
        }
    }

    override fun register() {
        val request = NetworkRequest.Builder()
            .addCapability(NetworkCapabilities.NET_CAPABILITY_INTERNET)
            .addCapability(NetworkCapabilities.NET_CAPABILITY_NOT_VPN)
            .build()
        try {
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) follow(request) else manager.requestNetwork(request, callback)
        } catch (error: RuntimeException) {
            // The permission is missing, or the app has too many requests; the tunnel works without.
            Log.w(VMessVpnService.TAG, "the network cannot be followed", error)
        }
    }

    override fun unregister() {
        try {
            manager.unregisterNetworkCallback(callback)
        } catch (_: IllegalArgumentException) {
            // Never registered.
        }
    }

    @RequiresApi(Build.VERSION_CODES.S)
    private fun follow(request: NetworkRequest): Unit =
        manager.registerBestMatchingNetworkCallback(request, callback, Handler(Looper.getMainLooper()))

    /** The callbacks that follow an available network by themselves from Android 8 on. */
    private fun ask(network: Network) {
        manager.getNetworkCapabilities(network)?.let { callback.onCapabilitiesChanged(network, it) }
        manager.getLinkProperties(network)?.let { callback.onLinkPropertiesChanged(network, it) }
    }

    private fun below(network: Network?) {
        best = network
        service.get()?.setUnderlyingNetworks(if (network == null) emptyArray() else arrayOf(network))
    }

    private fun NetworkCapabilities.facts() = NetworkCapabilitiesFacts(
        isVpn = hasTransport(NetworkCapabilities.TRANSPORT_VPN) ||
            !hasCapability(NetworkCapabilities.NET_CAPABILITY_NOT_VPN),
        metered = !hasCapability(NetworkCapabilities.NET_CAPABILITY_NOT_METERED),
        validated = hasCapability(NetworkCapabilities.NET_CAPABILITY_VALIDATED),
        captivePortal = hasCapability(NetworkCapabilities.NET_CAPABILITY_CAPTIVE_PORTAL),
    )

    private fun LinkProperties.facts() = NetworkLinkFacts(
        index = index(interfaceName),
        addresses = linkAddresses.map { it.address },
        dns = dnsServers,
        nat64Prefix = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) nat64(this) else null,
    )

    @RequiresApi(Build.VERSION_CODES.R)
    private fun nat64(link: LinkProperties) = link.nat64Prefix?.address

    private fun index(name: String?): Int = try {
        name?.let(NetworkInterface::getByName)?.index ?: 0
    } catch (_: SocketException) {
        0
    }
}

/** Tells a session when the device dozes. */
internal class PowerWatcher(context: Context, private val session: VpnSession) : Watcher {
    // The system holds a receiver with the context that has registered it.
    private val context = context.applicationContext
    private val power = this.context.getSystemService(Context.POWER_SERVICE) as PowerManager

    private val receiver = object : BroadcastReceiver() {
        override fun onReceive(context: Context, intent: Intent) = session.idle(isIdle())
    }

    override fun register() {
        val filter = IntentFilter(PowerManager.ACTION_DEVICE_IDLE_MODE_CHANGED)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) registerPrivately(filter) else {
            context.registerReceiver(receiver, filter)
        }
        session.idle(isIdle())
    }

    override fun unregister() {
        try {
            context.unregisterReceiver(receiver)
        } catch (_: IllegalArgumentException) {
            // Never registered.
        }
    }

    @RequiresApi(Build.VERSION_CODES.TIRAMISU)
    private fun registerPrivately(filter: IntentFilter) {
        filter.addAction(PowerManager.ACTION_DEVICE_LIGHT_IDLE_MODE_CHANGED)
        context.registerReceiver(receiver, filter, Context.RECEIVER_NOT_EXPORTED)
    }

    private fun isIdle(): Boolean = power.isDeviceIdleMode ||
        (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU && isLightlyIdle())

    @RequiresApi(Build.VERSION_CODES.TIRAMISU)
    private fun isLightlyIdle(): Boolean = power.isDeviceLightIdleMode
}
