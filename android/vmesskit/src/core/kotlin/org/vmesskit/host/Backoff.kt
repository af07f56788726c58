package org.vmesskit.host

import kotlin.time.Duration
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds

/** How long to wait before each try after a failure: twice as long each time, to a limit. */
public class Backoff(private val first: Duration = 1.seconds, private val longest: Duration = 1.minutes) {
    private var next = first

    /** How long to wait now. */
    public fun next(): Duration = next.also { next = (next * 2).coerceAtMost(longest) }

    /** It has worked: the next failure waits the shortest time again. */
    public fun reset() {
        next = first
    }
}
