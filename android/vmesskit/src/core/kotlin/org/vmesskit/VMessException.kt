package org.vmesskit

import org.vmesskit.ffi.ErrorKind
import org.vmesskit.ffi.TunnelException

/**
 * Everything that this library throws, and that a state carries. Show [text] and [hint] to a person, log [reason], and
 * branch on the class or on [code].
 *
 * @property code the stable number, the same in every language; from 1000 on they belong to this layer alone.
 * @property text what went wrong and where: one sentence.
 * @property hint what to do about it; may be empty.
 * @property reason the technical reason below it; may be empty.
 */
public sealed class VMessException(
    public val code: Int,
    public val text: String,
    public val hint: String = "",
    public val reason: String = "",
    cause: Throwable? = null,
) : Exception(text, cause) {
    /** The config has errors; [path] is the JSON path of the first. */
    public class ConfigInvalid(text: String, hint: String = "", reason: String = "", public val path: String = "") :
        VMessException(1, text, hint, reason)

    /** No connection to the server could be made; [stage] is the step that failed. */
    public class ServerUnreachable(text: String, hint: String = "", reason: String = "", public val stage: Stage) :
        VMessException(2, text, hint, reason)

    /** The TLS handshake or the certificate failed. */
    public class TlsFailed(text: String, hint: String = "", reason: String = "") :
        VMessException(3, text, hint, reason)

    /** The server closed without a valid answer, as it does for an unknown id or a wrong clock. */
    public class AuthRejected(text: String, hint: String = "", reason: String = "") :
        VMessException(4, text, hint, reason)

    /** This device's clock is off by [seconds]; positive: it is fast. */
    public class ClockSkew(text: String, hint: String = "", reason: String = "", public val seconds: Long) :
        VMessException(5, text, hint, reason)

    /** The system refused to keep a socket out of the tunnel. */
    public class ProtectFailed(text: String, hint: String = "", reason: String = "") :
        VMessException(6, text, hint, reason)

    /** Reading or writing the tun device failed. */
    public class TunIo(text: String, hint: String = "", reason: String = "") : VMessException(7, text, hint, reason)

    /** The tun device is gone. */
    public class TunGone(text: String, hint: String = "", reason: String = "") : VMessException(8, text, hint, reason)

    /** A limit was reached: [what] ran out. */
    public class ResourceLimit(text: String, hint: String = "", reason: String = "", public val what: String) :
        VMessException(9, text, hint, reason)

    /** The tunnel has been started before. */
    public class AlreadyRunning(text: String, hint: String = "", reason: String = "") :
        VMessException(10, text, hint, reason)

    /** The tunnel has been stopped. */
    public class Stopped(text: String, hint: String = "", reason: String = "") : VMessException(11, text, hint, reason)

    /** [what] took longer than it may. */
    public class Timeout(text: String, hint: String = "", reason: String = "", public val what: String) :
        VMessException(12, text, hint, reason)

    /** The call is not legal here, or an argument is out of its range. */
    public class Misuse(text: String, hint: String = "", reason: String = "") : VMessException(13, text, hint, reason)

    /** Not built into this version. */
    public class Unsupported(text: String, hint: String = "", reason: String = "") :
        VMessException(14, text, hint, reason)

    /** A defect of the library. */
    public class Internal(text: String, hint: String = "", reason: String = "", cause: Throwable? = null) :
        VMessException(15, text, hint, reason, cause)

    /** The system gives this app no tun device: the permission is missing, or another VPN has taken over. */
    public class NotPermitted(text: String, hint: String = "", reason: String = "") :
        VMessException(1000, text, hint, reason)

    /** The app's own code failed, such as `configuration()`; [cause] is what it threw. */
    public class HostFailed(text: String, hint: String = "", reason: String = "", cause: Throwable? = null) :
        VMessException(1001, text, hint, reason, cause)

    /** A kind that this version does not know; [code] is its stable number. */
    public class Unknown(code: Int, text: String, hint: String = "", reason: String = "") :
        VMessException(code, text, hint, reason)

    /** All that is known, on one line: for a log. */
    override fun toString(): String = buildString {
        append(this@VMessException::class.java.simpleName).append(": ")
        (this@VMessException as? ConfigInvalid)?.path?.takeIf { it.isNotEmpty() }?.let { append(it).append(": ") }
        append(text)
        if (reason.isNotEmpty()) append(" (").append(reason).append(')')
        if (hint.isNotEmpty()) append("; ").append(hint)
    }
}

/** The error of the bindings as this layer's own. */
internal fun TunnelException.toVMess(): VMessException = when (this) {
    is TunnelException.Failed -> toVMess()
}

private fun TunnelException.Failed.toVMess(): VMessException = when (val kind = kind) {
    ErrorKind.ConfigInvalid -> VMessException.ConfigInvalid(text, hint, reason, path)
    is ErrorKind.ServerUnreachable -> VMessException.ServerUnreachable(text, hint, reason, kind.stage.toVMess())
    ErrorKind.TlsFailed -> VMessException.TlsFailed(text, hint, reason)
    ErrorKind.AuthRejected -> VMessException.AuthRejected(text, hint, reason)
    is ErrorKind.ClockSkew -> VMessException.ClockSkew(text, hint, reason, kind.seconds)
    ErrorKind.ProtectFailed -> VMessException.ProtectFailed(text, hint, reason)
    ErrorKind.TunIo -> VMessException.TunIo(text, hint, reason)
    ErrorKind.TunGone -> VMessException.TunGone(text, hint, reason)
    is ErrorKind.ResourceLimit -> VMessException.ResourceLimit(text, hint, reason, kind.what)
    ErrorKind.AlreadyRunning -> VMessException.AlreadyRunning(text, hint, reason)
    ErrorKind.Stopped -> VMessException.Stopped(text, hint, reason)
    is ErrorKind.Timeout -> VMessException.Timeout(text, hint, reason, kind.what)
    ErrorKind.Misuse -> VMessException.Misuse(text, hint, reason)
    ErrorKind.Unsupported -> VMessException.Unsupported(text, hint, reason)
    ErrorKind.Internal -> VMessException.Internal(text, hint, reason)
    is ErrorKind.Unknown -> VMessException.Unknown(kind.code.toInt(), text, hint, reason)
}

/** Runs a call into the library, and turns what it throws into a [VMessException]. */
internal inline fun <T> translated(call: () -> T): T = try {
    call()
} catch (error: TunnelException) {
    throw error.toVMess()
} catch (error: org.vmesskit.ffi.InternalException) {
    throw VMessException.Internal("the library has failed", reason = error.message.orEmpty(), cause = error)
}
