package org.vmesskit.host

import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import org.vmesskit.LogLine

/** The newest [capacity] log lines, for a log view that is opened later. */
public class LogBuffer(private val capacity: Int = 500) {
    private val state = MutableStateFlow<List<LogLine>>(emptyList())

    /** The lines, oldest first. */
    public val lines: StateFlow<List<LogLine>> = state.asStateFlow()

    /** Adds lines, and forgets the oldest beyond the capacity. */
    public fun add(lines: List<LogLine>): Unit = state.update { (it + lines).takeLast(capacity) }
}
