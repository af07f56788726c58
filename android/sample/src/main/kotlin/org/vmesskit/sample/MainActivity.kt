package org.vmesskit.sample

import android.Manifest
import android.app.Activity
import android.app.AlertDialog
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import org.vmesskit.State
import org.vmesskit.VMess
import org.vmesskit.VMessException
import org.vmesskit.android.VpnController

/** One screen: a link, connect, rates, the apps that use the tunnel, and the log. */
class MainActivity : Activity() {
    private lateinit var controller: VpnController
    private lateinit var settings: Settings
    private lateinit var link: EditText
    private lateinit var connect: Button
    private lateinit var status: TextView
    private lateinit var log: TextView
    private val main = Handler(Looper.getMainLooper())
    private val rates = Rates()
    private val refresh = object : Runnable {
        override fun run() {
            show()
            main.postDelayed(this, EVERY_MILLIS)
        }
    }

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        settings = Settings(this)
        controller = VpnController(this, SampleVpnService::class.java)
        setContentView(screen())
        take(intent)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
        }
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        take(intent)
    }

    override fun onResume() {
        super.onResume()
        refresh.run()
    }

    override fun onPause() {
        main.removeCallbacks(refresh)
        super.onPause()
    }

    override fun onDestroy() {
        controller.close()
        super.onDestroy()
    }

    @Deprecated("The way without a library of its own.")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        if (result == RESULT_OK) controller.start() else status.text = "The VPN needs the permission."
    }

    private fun screen(): ScrollView {
        link = EditText(this).apply {
            hint = "vmess:// link, or the text of a scanned code"
            setText(settings.link)
        }
        connect = Button(this).apply { setOnClickListener { toggle() } }
        status = TextView(this)
        log = TextView(this).apply { textSize = 11f }
        val apps = Button(this).apply {
            text = "Apps"
            setOnClickListener { chooseApps() }
        }
        val column = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        for (view in listOf(link, connect, apps, status, log)) column.addView(view)
        return ScrollView(this).apply { addView(column) }
    }

    /** Takes a link that another app has opened. */
    private fun take(intent: Intent?) {
        intent?.dataString?.takeIf { it.startsWith("vmess:") }?.let(link::setText)
    }

    private fun toggle() {
        if (controller.session.value?.isActive == true) {
            controller.stop()
            return
        }
        settings.link = link.text.toString()
        try {
            val json = settings.configuration().json
            VMess.validateConfig(json).firstOrNull { it.severity == org.vmesskit.Severity.ERROR }?.let {
                status.text = "${it.text}\n${it.hint}"
                return
            }
        } catch (error: VMessException) {
            status.text = "${error.text}\n${error.hint}"
            return
        }
        @Suppress("DEPRECATION")
        controller.prepare()?.let { startActivityForResult(it, 0) } ?: controller.start()
    }

    private fun chooseApps() {
        val installed = packageManager.queryIntentActivities(
            Intent(Intent.ACTION_MAIN).addCategory(Intent.CATEGORY_LAUNCHER),
            0,
        ).map { it.activityInfo.packageName to it.loadLabel(packageManager) }.distinctBy { it.first }
        val chosen = settings.apps.toMutableSet()
        AlertDialog.Builder(this)
            .setTitle("Only these use the tunnel (none: all)")
            .setMultiChoiceItems(
                installed.map { it.second }.toTypedArray(),
                BooleanArray(installed.size) { installed[it].first in chosen },
            ) { _, which, checked ->
                if (checked) chosen += installed[which].first else chosen -= installed[which].first
            }
            .setPositiveButton(android.R.string.ok) { _, _ ->
                settings.apps = chosen
                // What runs takes the list over, and its flows live on.
                if (controller.session.value?.isActive == true) controller.start()
            }
            .show()
    }

    private fun show() {
        val session = controller.session.value
        connect.text = if (session?.isActive == true) "Disconnect" else "Connect"
        if (session == null) return
        val state = session.state.value
        if (state != State.Idle) {
            val error = session.lastError.value?.let { "\n${it.text}\n${it.hint}" }.orEmpty()
            status.text = "$state${rates.text(session.stats())}$error"
        }
        log.text = session.logs.lines.value.takeLast(SHOWN_LINES).joinToString("\n") { it.text }
    }

    private companion object {
        const val EVERY_MILLIS = 1_000L
        const val SHOWN_LINES = 100
    }
}
