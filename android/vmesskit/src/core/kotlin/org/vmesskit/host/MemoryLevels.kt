package org.vmesskit.host

import org.vmesskit.MemoryPressure

/** What Android's `onTrimMemory` levels mean to a tunnel. */
public object MemoryLevels {
    private const val RUNNING_MODERATE = 5
    private const val RUNNING_LOW = 10
    private const val RUNNING_CRITICAL = 15
    private const val UI_HIDDEN = 20
    private const val COMPLETE = 80

    /**
     * The pressure that [level] tells of; null for none, as when an activity is hidden. The `RUNNING_*` levels are sent
     * below Android 14 (API 34) alone, and are the only ones that tell of the whole system's memory.
     */
    public fun pressure(level: Int): MemoryPressure? = when {
        level < RUNNING_MODERATE || level == UI_HIDDEN -> null
        level < RUNNING_LOW -> MemoryPressure.LOW
        level < RUNNING_CRITICAL -> MemoryPressure.LOW
        level < UI_HIDDEN -> MemoryPressure.CRITICAL
        level < COMPLETE -> MemoryPressure.LOW
        else -> MemoryPressure.CRITICAL
    }
}
