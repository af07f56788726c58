package org.vmesskit.host

import org.vmesskit.TunSettings
import org.vmesskit.VMessException
import java.net.Inet6Address
import java.net.InetAddress

/**
 * How the system is asked to set a tun device up: what a config says of it, and what the app adds.
 *
 * @property routes what goes in; where the system cannot exclude networks, what is excluded has been cut out of them.
 * @property excluded what stays out; empty where the system cannot exclude networks.
 * @property allowApps if not empty, the apps that alone use the tunnel; [denyApps] is empty then.
 * @property denyApps the apps that do not use the tunnel.
 * @property metered whether the tunnel counts as metered; null: the system decides.
 * @property bypassIpv6 whether IPv6 goes past a tunnel that carries none, where it would be blocked otherwise.
 */
public data class TunPlan(
    public val session: String,
    public val mtu: Int,
    public val addresses: List<Prefix>,
    public val routes: List<Prefix>,
    public val excluded: List<Prefix>,
    public val dns: List<InetAddress>,
    public val allowApps: List<String>,
    public val denyApps: List<String>,
    public val metered: Boolean?,
    public val bypassIpv6: Boolean,
) {
    public companion object {
        /**
         * Makes a plan.
         *
         * @param canExclude whether the system can exclude networks (Android 13, API 33).
         * @throws VMessException.ConfigInvalid if apps are allowed and others denied, which the system does not know.
         */
        public fun of(settings: TunSettings, configuration: VpnConfiguration, canExclude: Boolean): TunPlan {
            val allow = (settings.allowApps + configuration.allowApps).distinct()
            val deny = (settings.denyApps + configuration.denyApps).distinct()
            if (allow.isNotEmpty() && deny.isNotEmpty()) {
                throw VMessException.ConfigInvalid(
                    "some apps are allowed to use the tunnel, and others are denied it",
                    hint = "name either the apps that use the tunnel, or those that do not",
                    path = "inbounds[].settings.apps",
                )
            }
            val addresses = settings.addresses.map(Prefix::parse)
            val dns = settings.dns.map(Prefix::literal)
            val outside = settings.excludedRoutes.map { Prefix.parse(it).network } +
                if (configuration.bypassLan) Prefix.LOCAL else emptyList()
            val wanted = settings.routes.map { Prefix.parse(it).network }
            // Networks of our own lie in those of a LAN; the more exact route leads into the tunnel.
            val own = addresses.map { it.network } + dns.map { Prefix(it, it.address.size * 8) }
            val into = if (canExclude) wanted else wanted.flatMap { it.without(outside) }
            val carriesIpv6 = addresses.any { it.address is Inet6Address }
            return TunPlan(
                session = configuration.session,
                mtu = settings.mtu.toInt(),
                addresses = addresses,
                routes = (into + own).distinct(),
                excluded = if (canExclude) outside.filter { out -> wanted.any { it.overlaps(out) } }.distinct() else emptyList(),
                dns = dns,
                allowApps = allow,
                denyApps = deny,
                metered = configuration.metered ?: settings.metered,
                bypassIpv6 = configuration.bypassIpv6 && !carriesIpv6,
            )
        }

        private fun Prefix.overlaps(other: Prefix): Boolean = other in this || this in other
    }
}
