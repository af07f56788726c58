package org.vmesskit

import java.nio.Buffer
import java.nio.ByteBuffer
import kotlin.time.Duration
import kotlin.time.Duration.Companion.microseconds
import org.vmesskit.ffi.Measurement as FfiMeasurement

/** What needs no tunnel: configs, share links, subscriptions, and measuring servers. */
public object VMess {
    /** The library's version, such as `0.1.0`. */
    public val version: String
        get() = org.vmesskit.ffi.version()

    /** Checks a config (V2Ray's JSON, comments allowed) without doing any IO. */
    public fun validateConfig(json: String): List<Diagnostic> = org.vmesskit.ffi.validateConfig(json)

    /**
     * Writes a config in a uniform layout.
     *
     * @throws VMessException.ConfigInvalid
     */
    public fun formatConfig(json: String): String = translated { org.vmesskit.ffi.formatConfig(json) }

    /**
     * Makes a config, as JSON, of a `vmess://` share link.
     *
     * @throws VMessException.ConfigInvalid
     */
    public fun parseShareLink(uri: String): String = translated { org.vmesskit.ffi.parseShareLink(uri) }

    /**
     * Makes a share link, which holds the id, of a config's first VMess outbound.
     *
     * @throws VMessException.ConfigInvalid
     */
    public fun toShareLink(json: String): String = translated { org.vmesskit.ffi.toShareLink(json) }

    /**
     * Reads a subscription's body: share links, as they are or as base64 of the whole, or the JSON of several clients.
     * What cannot be read is a finding.
     *
     * @throws VMessException.ConfigInvalid if the body is none of that.
     */
    public fun parseSubscription(bytes: ByteArray): Subscription {
        val direct = ByteBuffer.allocateDirect(bytes.size).put(bytes)
        // As a Buffer: the method that ByteBuffer has of its own came with Android 14.
        (direct as Buffer).rewind()
        return translated { org.vmesskit.ffi.parseSubscription(direct) }
    }

    /**
     * Fetches an address through each config, without a running tunnel, and tells how long it took; one result a config,
     * in their order. Cancelling ends it.
     *
     * @throws VMessException.Misuse if the address is none, or the request out of its range.
     */
    public suspend fun measure(request: MeasureRequest, platform: Platform? = null): List<Measurement> = translated {
        org.vmesskit.ffi.measure(request, platform?.let(::PlatformAdapter)).map { it.toVMess() }
    }
}

/** What was measured of one config: the time from the dial to the head of the HTTP answer, or why there is none. */
public data class Measurement(public val latency: Duration?, public val error: VMessException?)

internal fun FfiMeasurement.toVMess(): Measurement =
    Measurement(latencyMicros?.toLong()?.microseconds, error?.toVMess())
