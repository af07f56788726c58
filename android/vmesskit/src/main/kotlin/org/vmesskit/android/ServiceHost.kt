package org.vmesskit.android

import android.content.Context
import android.content.pm.PackageManager
import android.net.ConnectivityManager
import android.net.IpPrefix
import android.net.VpnService
import android.os.Build
import android.os.ParcelFileDescriptor
import android.os.Process
import android.system.OsConstants
import android.util.Log
import androidx.annotation.RequiresApi
import org.vmesskit.LogLevel
import org.vmesskit.LogLine
import org.vmesskit.Transport
import org.vmesskit.VMessException
import org.vmesskit.host.SocketAddresses
import org.vmesskit.host.TunDevice
import org.vmesskit.host.TunPlan
import org.vmesskit.host.VpnConfiguration
import org.vmesskit.host.VpnHost
import java.io.IOException
import java.lang.ref.WeakReference

/** A service as its session sees it. The library is behind the session, so the service is held weakly. */
internal class ServiceHost(private val service: WeakReference<VMessVpnService>) : VpnHost {
    override val canExclude: Boolean = Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU

    override val isLockdown: Boolean
        get() = Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q && service.get()?.let(::isLockdown) == true

    override suspend fun configuration(): VpnConfiguration =
        service.get()?.configuration() ?: throw VMessException.Stopped("the service is gone")

    override fun establish(plan: TunPlan): TunDevice? {
        val service = service.get() ?: return null
        val builder = service.Builder().setSession(plan.session).setMtu(plan.mtu).setBlocking(false)
        plan.addresses.forEach { builder.addAddress(it.address, it.length) }
        plan.routes.forEach { builder.addRoute(it.address, it.length) }
        plan.dns.forEach { builder.addDnsServer(it) }
        if (canExclude) exclude(builder, plan)
        admit(builder, plan)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) plan.metered?.let { meter(builder, it) }
        if (plan.bypassIpv6) builder.allowFamily(OsConstants.AF_INET6)
        service.configureIntent()?.let { builder.setConfigureIntent(it) }
        return builder.establish()?.let(::Device)
    }

    override fun protectSocket(fd: Int): Boolean = service.get()?.protect(fd) == true

    override fun findOwner(transport: Transport, source: String, destination: String): Int? {
        val service = service.get() ?: return null
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return null
        return owner(service, transport, source, destination)
    }

    override fun log(level: LogLevel, text: String) {
        val priority = when (level) {
            LogLevel.NONE -> return
            LogLevel.ERROR -> Log.ERROR
            LogLevel.WARNING -> Log.WARN
            LogLevel.INFO -> Log.INFO
            LogLevel.DEBUG -> Log.DEBUG
        }
        Log.println(priority, VMessVpnService.TAG, text)
        service.get()?.session?.logs?.add(listOf(LogLine(level, System.currentTimeMillis(), text)))
    }

    override fun ended(error: VMessException?) {
        service.get()?.ended(error)
    }

    /** Lets apps in, or keeps them out. One that is not installed is left out, with a warning. */
    private fun admit(builder: VpnService.Builder, plan: TunPlan) {
        val allowed = plan.allowApps.count { known(it) { builder.addAllowedApplication(it) } }
        if (plan.allowApps.isNotEmpty() && allowed == 0) {
            // Without a list, all apps would be let in.
            throw VMessException.ConfigInvalid(
                "none of the apps that are to use the tunnel is installed",
                hint = "choose other apps",
                reason = plan.allowApps.joinToString(),
                path = "inbounds[].settings.apps.allow",
            )
        }
        plan.denyApps.forEach { known(it) { builder.addDisallowedApplication(it) } }
    }

    private fun known(app: String, add: () -> Unit): Boolean = try {
        add()
        true
    } catch (_: PackageManager.NameNotFoundException) {
        log(LogLevel.WARNING, "the app $app is not installed")
        false
    }

    @RequiresApi(Build.VERSION_CODES.TIRAMISU)
    private fun exclude(builder: VpnService.Builder, plan: TunPlan): Unit =
        plan.excluded.forEach { builder.excludeRoute(IpPrefix(it.address, it.length)) }

    @RequiresApi(Build.VERSION_CODES.Q)
    private fun meter(builder: VpnService.Builder, metered: Boolean) {
        builder.setMetered(metered)
    }

    @RequiresApi(Build.VERSION_CODES.Q)
    private fun isLockdown(service: VpnService): Boolean = service.isLockdownEnabled

    @RequiresApi(Build.VERSION_CODES.Q)
    private fun owner(service: VpnService, transport: Transport, source: String, destination: String): Int? {
        val manager = service.getSystemService(Context.CONNECTIVITY_SERVICE) as ConnectivityManager
        val protocol = if (transport == Transport.TCP) OsConstants.IPPROTO_TCP else OsConstants.IPPROTO_UDP
        val from = SocketAddresses.parse(source) ?: return null
        val to = SocketAddresses.parse(destination) ?: return null
        return manager.getConnectionOwnerUid(protocol, from, to).takeIf { it != Process.INVALID_UID }
    }

    /** A device of the system's; its descriptor is lent to the library, which duplicates it. */
    private class Device(private val descriptor: ParcelFileDescriptor) : TunDevice {
        override val fd: Int
            get() = descriptor.fd

        override fun close() {
            try {
                descriptor.close()
            } catch (error: IOException) {
                Log.w(VMessVpnService.TAG, "the tun device cannot be closed", error)
            }
        }
    }
}
