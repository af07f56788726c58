package org.vmesskit.sample

import android.content.Context
import org.vmesskit.VMess
import org.vmesskit.VMessException
import org.vmesskit.host.VpnConfiguration

/** What the user has chosen, where the service finds it after any restart. */
class Settings(context: Context) {
    private val stored = context.getSharedPreferences("vpn", Context.MODE_PRIVATE)

    /** A share link, or a whole config in JSON. */
    var link: String
        get() = stored.getString("link", "").orEmpty()
        set(value) = stored.edit().putString("link", value.trim()).apply()

    /** The packages of the apps that alone use the tunnel; none: all do. */
    var apps: Set<String>
        get() = stored.getStringSet("apps", emptySet()).orEmpty()
        set(value) = stored.edit().putStringSet("apps", value).apply()

    /** What the service is to run. */
    fun configuration(): VpnConfiguration {
        if (link.isEmpty()) throw VMessException.ConfigInvalid("there is no link yet", hint = "paste one")
        // What a scanner gives may have words around the link.
        val json = if (link.startsWith("{")) link else VMess.parseShareLink(LINK.find(link)?.value ?: link)
        return VpnConfiguration(json, session = "VMessKit sample", allowApps = apps.sorted(), bypassLan = true)
    }

    private companion object {
        val LINK = Regex("vmess://\\S+", RegexOption.IGNORE_CASE)
    }
}
