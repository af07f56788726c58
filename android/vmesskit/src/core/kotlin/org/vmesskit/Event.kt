package org.vmesskit

import org.vmesskit.ffi.Event as FfiEvent

/** What a tunnel tells its host. */
public sealed interface Event {
    /** The state has changed; the last event of a tunnel is always [State.Stopped]. */
    public data class StateChanged(public val state: State) : Event

    /** Log lines, oldest first. */
    public data class Log(public val lines: List<LogLine>) : Event

    /** The network below has changed and has been taken up. */
    public data class NetworkChanged(public val network: NetworkInfo) : Event

    /** Several flows in a row have sent to an outbound and received nothing; [likely]: why, surest first. */
    public data class OutboundUnhealthy(public val outbound: String, public val likely: List<Cause>) : Event

    /** A server closed before a valid answer; [likely]: why, surest first. */
    public data class AuthRejected(public val outbound: String, public val likely: List<Cause>) : Event

    /** This device's clock is off by [seconds]; positive: it is fast. */
    public data class ClockSkew(public val seconds: Long) : Event

    /** A limit was reached: [what] ran out. */
    public data class ResourceLimit(public val what: String) : Event

    /** Something is wrong that may pass; traffic goes on. */
    public data class Degraded(public val reason: String) : Event

    /** The host was too slow: [count] events other than states were dropped. */
    public data class EventsDropped(public val count: Long) : Event

    /** An event that this version does not know. */
    public data class Unknown(public val code: Int) : Event
}

internal fun FfiEvent.toVMess(): Event = when (this) {
    is FfiEvent.StateChanged -> Event.StateChanged(state.toVMess())
    is FfiEvent.Log -> Event.Log(lines)
    is FfiEvent.NetworkChanged -> Event.NetworkChanged(network)
    is FfiEvent.OutboundUnhealthy -> Event.OutboundUnhealthy(outbound, likely.toVMess())
    is FfiEvent.AuthRejected -> Event.AuthRejected(outbound, likely.toVMess())
    is FfiEvent.ClockSkew -> Event.ClockSkew(seconds)
    is FfiEvent.ResourceLimit -> Event.ResourceLimit(what)
    is FfiEvent.Degraded -> Event.Degraded(reason)
    is FfiEvent.EventsDropped -> Event.EventsDropped(count.toLong())
    is FfiEvent.Unknown -> Event.Unknown(code.toInt())
}
