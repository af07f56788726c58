package org.vmesskit.host

import org.vmesskit.LogLevel
import org.vmesskit.Transport
import org.vmesskit.VMessException

/** What a [VpnSession] asks of the operating system and of the app. Called on threads of the session's own. */
public interface VpnHost {
    /** Whether the system can keep networks out of a tun device. */
    public val canExclude: Boolean

    /** Whether the user lets nothing pass beside the VPN, also while it is down. */
    public val isLockdown: Boolean

    /** What the app wants; asked on every start. What it throws ends the start. */
    public suspend fun configuration(): VpnConfiguration

    /** Sets a tun device up; null if the system gives this app none. */
    public fun establish(plan: TunPlan): TunDevice?

    /** Keeps a socket of the library out of the tunnel. */
    public fun protectSocket(fd: Int): Boolean

    /** The uid of the app that a flow belongs to; null: unknown. */
    public fun findOwner(transport: Transport, source: String, destination: String): Int?

    /** Writes a line where the developer looks. */
    public fun log(level: LogLevel, text: String)

    /** A run is over, and nothing of it is left; [error] says why if nobody asked for it. */
    public fun ended(error: VMessException?)
}

/** A tun device that the system has set up. It is there until it is closed. */
public interface TunDevice {
    /** Its descriptor, which stays this object's. */
    public val fd: Int

    /** Takes the device down, unless the tunnel still has a duplicate. */
    public fun close()
}
