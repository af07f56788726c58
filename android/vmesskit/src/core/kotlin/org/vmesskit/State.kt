package org.vmesskit

import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import org.vmesskit.ffi.State as FfiState
import org.vmesskit.ffi.Status as FfiStatus

/** The state of a tunnel. */
public sealed interface State {
    /** Made, not started. */
    public data object Idle : State

    /** `start` is under way. */
    public data object Starting : State

    /** Started; no server has answered yet. */
    public data object Connecting : State

    /** A server has answered, or there is none to dial. */
    public data object Connected : State

    /** There is no network. */
    public data object NoNetwork : State

    /** Running, with a fault that may pass. */
    public data class Degraded(public val reason: String) : State

    /** `stop` is under way. */
    public data object Stopping : State

    /** Over, for good; [error] says why if it was not asked for. */
    public data class Stopped(public val error: VMessException?) : State

    /** A state that this version does not know. */
    public data class Unknown(public val code: Int) : State
}

/** The [state], for how long it has been so, and the newest error. */
public data class Status(
    public val state: State,
    public val since: Duration,
    public val lastError: VMessException?,
)

internal fun FfiState.toVMess(): State = when (this) {
    FfiState.Idle -> State.Idle
    FfiState.Starting -> State.Starting
    FfiState.Connecting -> State.Connecting
    FfiState.Connected -> State.Connected
    FfiState.NoNetwork -> State.NoNetwork
    is FfiState.Degraded -> State.Degraded(reason)
    FfiState.Stopping -> State.Stopping
    is FfiState.Stopped -> State.Stopped(error?.toVMess())
}

internal fun FfiStatus.toVMess(): Status =
    Status(state.toVMess(), sinceMillis.toLong().milliseconds, lastError?.toVMess())
