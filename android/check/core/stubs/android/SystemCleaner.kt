package android.system

import java.lang.ref.Cleaner

/** Android's cleaner from version 34 on; the bindings compile against it and do not come to it. */
public object SystemCleaner {
    @JvmStatic
    public fun cleaner(): Cleaner = Cleaner.create()
}
