package org.vmesskit.android

import android.content.ComponentName
import android.content.Context
import android.content.Intent
import android.content.ServiceConnection
import android.net.VpnService
import android.os.Binder
import android.os.Build
import android.os.IBinder
import androidx.annotation.RequiresApi
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import org.vmesskit.host.VpnSession

/**
 * An activity's hold on its app's VPN: make it in `onCreate`, close it in `onDestroy`. The VPN goes on without.
 *
 * @param service the app's own service.
 */
public class VpnController(context: Context, private val service: Class<out VMessVpnService>) : AutoCloseable {
    private val context = context.applicationContext
    private val bound = MutableStateFlow<VpnSession?>(null)

    private val connection = object : ServiceConnection {
        override fun onServiceConnected(name: ComponentName?, binder: IBinder?) {
            bound.value = (binder as? SessionBinder)?.session
        }

        override fun onServiceDisconnected(name: ComponentName?) {
            bound.value = null
        }
    }

    /** What runs in the service: its state, events, log and counters; null until the service has answered. */
    public val session: StateFlow<VpnSession?> = bound.asStateFlow()

    init {
        this.context.bindService(intent(), connection, Context.BIND_AUTO_CREATE)
    }

    /** What to show the user (`startActivityForResult`) before the first [start]; null: nothing, it is allowed. */
    public fun prepare(): Intent? = VpnService.prepare(context)

    /** Starts the VPN, or has one that runs take over what the app has changed. */
    public fun start() {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.O) startForeground() else context.startService(intent())
    }

    /** Stops the VPN. */
    public fun stop() {
        bound.value?.let {
            it.stop()
            return
        }
        context.startService(intent().setAction(VMessVpnService.ACTION_STOP))
    }

    override fun close() {
        bound.value = null
        context.unbindService(connection)
    }

    @RequiresApi(Build.VERSION_CODES.O)
    private fun startForeground() {
        context.startForegroundService(intent())
    }

    private fun intent() = Intent(context, service)
}

/** Gives an app's own components the session; it does not hold the service. */
internal class SessionBinder(val session: VpnSession) : Binder()
