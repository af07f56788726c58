package androidx.annotation

/** The annotation that the bindings use; its own package is one that only Google's repository promises. */
@Retention(AnnotationRetention.BINARY)
public annotation class RequiresApi(val value: Int)
