package org.vmesskit.host

import org.vmesskit.TunnelOptions

/**
 * What an app wants of its VPN. The config says most of it; this adds what belongs to the device and its user.
 *
 * @property json the config: V2Ray's JSON.
 * @property options how the tunnel is started; the network is filled in by the service.
 * @property session the name that the system shows.
 * @property allowApps more apps that alone use the tunnel, beside the config's; package names.
 * @property denyApps more apps that do not use it; not both.
 * @property bypassLan keeps printers, shares and casting of the local network reachable.
 * @property bypassIpv6 lets IPv6 pass beside a tunnel that carries none. It then shows the user's own address.
 * @property metered whether the tunnel counts as metered; null: as the config says, else as the system does.
 */
public data class VpnConfiguration(
    public val json: String,
    public val options: TunnelOptions = TunnelOptions(),
    public val session: String = "VMessKit",
    public val allowApps: List<String> = emptyList(),
    public val denyApps: List<String> = emptyList(),
    public val bypassLan: Boolean = false,
    public val bypassIpv6: Boolean = false,
    public val metered: Boolean? = null,
) {
    /** Says nothing of the config, which holds ids. */
    override fun toString(): String = "VpnConfiguration(session=$session)"
}
