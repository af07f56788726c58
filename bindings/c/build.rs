//! Gives the shared library its name: cargo sets none on Linux, and a program linked against a nameless library
//! remembers the path that it was linked from.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The number is the ABI's, `vmk_abi_version`; Android loads libraries by their file name alone.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvmesskit.so.1");
    }
}
