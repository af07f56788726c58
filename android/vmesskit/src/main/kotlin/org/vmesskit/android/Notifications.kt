package org.vmesskit.android

import android.annotation.SuppressLint
import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.os.Build
import androidx.annotation.RequiresApi
import org.vmesskit.State

/** The notification of an app that brings none of its own. */
internal object Notifications {
    private const val CHANNEL = "org.vmesskit.vpn"

    fun manager(context: Context): NotificationManager =
        context.getSystemService(Context.NOTIFICATION_SERVICE) as NotificationManager

    /** The app's name, the state, and what opens on touch. */
    fun default(service: Service, state: State, open: PendingIntent?): Notification {
        val builder = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.O) onChannel(service) else plain(service)
        return builder
            .setContentTitle(service.applicationInfo.loadLabel(service.packageManager))
            .setContentText(text(state))
            .setSmallIcon(android.R.drawable.ic_lock_lock)
            .setContentIntent(open)
            .setCategory(Notification.CATEGORY_SERVICE)
            .setOnlyAlertOnce(true)
            .setOngoing(true)
            .build()
    }

    /** What opens the app; null if it cannot be opened. */
    fun launcher(context: Context): PendingIntent? {
        val intent = context.packageManager.getLaunchIntentForPackage(context.packageName) ?: return null
        return PendingIntent.getActivity(context, 0, intent, PendingIntent.FLAG_IMMUTABLE)
    }

    private fun text(state: State): String = when (state) {
        is State.Degraded -> state.reason
        is State.Stopped -> state.error?.text ?: "Disconnected"
        State.NoNetwork -> "Waiting for a network"
        State.Connected -> "Connected"
        State.Stopping -> "Disconnecting"
        State.Idle, State.Starting, State.Connecting, is State.Unknown -> "Connecting"
    }

    @RequiresApi(Build.VERSION_CODES.O)
    private fun onChannel(context: Context): Notification.Builder {
        manager(context).createNotificationChannel(NotificationChannel(CHANNEL, "VPN", NotificationManager.IMPORTANCE_LOW))
        return Notification.Builder(context, CHANNEL)
    }

    @SuppressLint("Deprecated")
    @Suppress("DEPRECATION")
    private fun plain(context: Context) = Notification.Builder(context)
}
