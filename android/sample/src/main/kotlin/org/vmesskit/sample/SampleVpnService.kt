package org.vmesskit.sample

import org.vmesskit.android.VMessVpnService
import org.vmesskit.host.VpnConfiguration

/** All that an app must write: where its configuration is. */
class SampleVpnService : VMessVpnService() {
    override suspend fun configuration(): VpnConfiguration = Settings(this).configuration()
}
