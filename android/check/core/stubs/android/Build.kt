package android.os

/** What the generated bindings ask of Android: on the JVM they get the version before the system's own cleaner. */
public object Build {
    public object VERSION {
        @JvmField public val SDK_INT: Int = 24
    }

    public object VERSION_CODES {
        public const val UPSIDE_DOWN_CAKE: Int = 34
    }
}
