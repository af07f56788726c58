package org.vmesskit

import org.vmesskit.ffi.Cause as FfiCause
import org.vmesskit.ffi.CauseKind as FfiCauseKind
import org.vmesskit.ffi.Stage as FfiStage

/** A cause of a fault: what it may be, how sure that is in percent, and what to do, for a person. */
public data class Cause(public val kind: CauseKind, public val confidence: Int, public val text: String)

/** What may be at fault. */
public sealed interface CauseKind {
    /** The id is not known to the server, or its alterId differs. */
    public data object Id : CauseKind

    /** This device's clock is off by more than VMess bears. */
    public data object Clock : CauseKind

    /** The server is gone, or something between drops the traffic. */
    public data object ServerGone : CauseKind

    /** The server refuses the security that is configured. */
    public data object Security : CauseKind

    /** The target behind the server does not answer. */
    public data object Target : CauseKind

    /** A cause that this version does not know. */
    public data class Unknown(public val code: Int) : CauseKind
}

/** Which step of setting up a connection to a server failed. */
public sealed interface Stage {
    /** The server's name was being resolved. */
    public data object Resolve : Stage

    /** The socket was being connected. */
    public data object Connect : Stage

    /** The TLS handshake was under way. */
    public data object Tls : Stage

    /** The HTTP upgrade, or what the transport has in its place, was under way. */
    public data object Upgrade : Stage

    /** The VMess header had been sent, its answer had not come. */
    public data object Vmess : Stage

    /** A step that this version does not know. */
    public data class Unknown(public val name: String) : Stage
}

internal fun List<FfiCause>.toVMess(): List<Cause> = map { Cause(it.kind.toVMess(), it.confidence.toInt(), it.text) }

private fun FfiCauseKind.toVMess(): CauseKind = when (this) {
    FfiCauseKind.Id -> CauseKind.Id
    FfiCauseKind.Clock -> CauseKind.Clock
    FfiCauseKind.ServerGone -> CauseKind.ServerGone
    FfiCauseKind.Security -> CauseKind.Security
    FfiCauseKind.Target -> CauseKind.Target
    is FfiCauseKind.Unknown -> CauseKind.Unknown(code.toInt())
}

internal fun FfiStage.toVMess(): Stage = when (this) {
    FfiStage.Resolve -> Stage.Resolve
    FfiStage.Connect -> Stage.Connect
    FfiStage.Tls -> Stage.Tls
    FfiStage.Upgrade -> Stage.Upgrade
    FfiStage.Vmess -> Stage.Vmess
    is FfiStage.Unknown -> Stage.Unknown(name)
}
