package org.vmesskit.sample

import org.vmesskit.Stats

/** Bytes a second, from two looks at the counters. */
class Rates {
    private var last: Stats? = null

    /** The rates since the last look. */
    fun text(now: Stats?): String {
        val before = last
        last = now
        if (now == null || before == null || now.uptimeMillis <= before.uptimeMillis) return ""
        val millis = (now.uptimeMillis - before.uptimeMillis).toLong()
        val up = (now.uplinkBytes - before.uplinkBytes).toLong() * 1_000 / millis
        val down = (now.downlinkBytes - before.downlinkBytes).toLong() * 1_000 / millis
        return "  up ${up / 1_024} KiB/s, down ${down / 1_024} KiB/s"
    }
}
