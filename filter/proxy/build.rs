//! Lets the linker write the shortest form of each number in the module, 5 % of its bytes. It can do so
//! only where it writes no debug information.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it runs before the build, not in a VM"
)]

fn main() {
    println!("cargo::rerun-if-env-changed=CARGO_PROFILE_RELEASE_STRIP");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let keeps_names = is("CARGO_PROFILE_RELEASE_STRIP", "none");
    if is("CARGO_CFG_TARGET_ARCH", "wasm32") && is("PROFILE", "release") && !keeps_names {
        println!("cargo::rustc-link-arg-cdylib=--compress-relocations");
    }
}
