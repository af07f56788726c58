package org.vmesskit.android

import android.annotation.SuppressLint
import android.app.Notification
import android.app.PendingIntent
import android.app.Service
import android.content.Intent
import android.content.pm.ServiceInfo
import android.net.VpnService
import android.os.Build
import android.os.Handler
import android.os.IBinder
import android.os.Looper
import android.util.Log
import androidx.annotation.RequiresApi
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.launch
import org.vmesskit.State
import org.vmesskit.VMessException
import org.vmesskit.host.MemoryLevels
import org.vmesskit.host.NetworkTracker
import org.vmesskit.host.VpnConfiguration
import org.vmesskit.host.VpnSession
import java.lang.ref.WeakReference

/**
 * A VPN in an app: subclass it, say what is to run in [configuration], and declare it in the manifest with
 * `android.permission.BIND_VPN_SERVICE` and the foreground type `systemExempted`. [VpnController] starts and stops it,
 * and shows how it is.
 *
 * The system may start it at any time and without extras: at boot (always-on), or after it has ended the process.
 */
public abstract class VMessVpnService : VpnService() {
    private val tracker = NetworkTracker()
    private val main = Handler(Looper.getMainLooper())
    private var watchers: List<Watcher> = emptyList()
    private var notifying: Job? = null
    private var latestStart = 0

    /** What runs in the service; it lives on until everything is put away. */
    public val session: VpnSession = VpnSession(ServiceHost(WeakReference(this)), tracker.network)

    /**
     * What is to run. Asked on every start, and when a start comes while the VPN runs: then what has changed is taken
     * over, with the flows that exist kept. Read it from storage; no extras are passed.
     */
    public abstract suspend fun configuration(): VpnConfiguration

    /** The notification of the foreground service, made anew on each change of the state. */
    protected open fun notification(state: State): Notification = Notifications.default(this, state, configureIntent())

    /** The number of the notification. */
    protected open val notificationId: Int = 0x7E55

    /** What opens when the user touches the notification, or the VPN in the system's settings. */
    public open fun configureIntent(): PendingIntent? = Notifications.launcher(this)

    /** The VPN is over; [error] says why if nobody asked for it. On the main thread. */
    protected open fun onStopped(error: VMessException?) {}

    override fun onCreate() {
        super.onCreate()
        watchers = listOf(NetworkWatcher(this, tracker), PowerWatcher(this, session))
        watchers.forEach(Watcher::register)
        notifying = follow(session, WeakReference(this))
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        // Within 5 s of a startForegroundService, whatever the intent asks.
        goForeground()
        latestStart = startId
        if (intent?.action == ACTION_STOP) {
            if (session.isActive) session.stop() else finish(null)
            return Service.START_NOT_STICKY
        }
        session.start()
        return Service.START_STICKY
    }

    override fun onBind(intent: Intent?): IBinder? =
        if (intent?.action == SERVICE_INTERFACE) super.onBind(intent) else SessionBinder(session)

    /** Another VPN has taken over, or the user has taken the permission back. */
    override fun onRevoke(): Unit = session.stop()

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        MemoryLevels.pressure(level)?.let(session::memoryPressure)
    }

    override fun onDestroy() {
        session.stop()
        watchers.forEach(Watcher::unregister)
        notifying?.cancel()
        super.onDestroy()
    }

    /** Leaves the foreground and ends the service, unless it has been started again. Called on any thread. */
    internal fun ended(error: VMessException?) {
        main.post { if (!session.isActive) finish(error) }
    }

    private fun finish(error: VMessException?) {
        stopForeground(Service.STOP_FOREGROUND_REMOVE)
        stopSelf(latestStart)
        onStopped(error)
    }

    private fun goForeground() {
        try {
            val notification = notification(session.state.value)
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE) {
                goForegroundExempted(notification)
            } else {
                startForeground(notificationId, notification)
            }
        } catch (error: RuntimeException) {
            // It may lack a permission, or have been started from the background; the VPN works without, for a time.
            Log.w(TAG, "the system refuses a foreground service", error)
        }
    }

    @SuppressLint("InlinedApi")
    @RequiresApi(Build.VERSION_CODES.UPSIDE_DOWN_CAKE)
    private fun goForegroundExempted(notification: Notification) {
        startForeground(notificationId, notification, ServiceInfo.FOREGROUND_SERVICE_TYPE_SYSTEM_EXEMPTED)
    }

    private fun show(state: State) {
        if (!session.isActive) return
        try {
            Notifications.manager(this).notify(notificationId, notification(state))
        } catch (error: RuntimeException) {
            Log.w(TAG, "the notification cannot be shown", error)
        }
    }

    public companion object {
        /** The action of an intent that stops the service; any other starts it. */
        public const val ACTION_STOP: String = "org.vmesskit.android.STOP"

        internal const val TAG: String = "VMessKit"

        /** Shows each state, without holding the service while it waits for the next. */
        private fun follow(session: VpnSession, service: WeakReference<VMessVpnService>): Job =
            CoroutineScope(Dispatchers.Default).launch {
                session.state.collect { service.get()?.show(it) }
            }
    }
}
