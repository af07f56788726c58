//! The process-wide log sink: logcat on Android, the unified log on Apple's systems, none elsewhere.

use std::sync::Once;

/// Installs the sink, the first time that it is called. Host names are logged at DEBUG and below, which it leaves out.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_os = "android")]
        android_logger::init_once(
            android_logger::Config::default().with_max_level(log::LevelFilter::Info).with_tag("VMessKit"),
        );
        #[cfg(target_vendor = "apple")]
        {
            // An app that has installed a sink of its own keeps it.
            let _ = oslog::OsLogger::new("org.vmesskit").level_filter(log::LevelFilter::Info).init();
        }
    });
}
