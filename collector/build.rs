//! Builds the BPF object of `ebpf/` and hands its path to `capture/loader.rs`.
//!
//! `aya-build` does the same but wants a nightly toolchain; the pinned stable one
//! with `RUSTC_BOOTSTRAP` needs nothing but `rust-src`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let source = root.join("ebpf");
    for watched in [
        "ebpf/src",
        "ebpf/Cargo.toml",
        "ebpf/Cargo.lock",
        "crates/ebpf-common/src",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    // Cargo sets OUT_DIR; run by hand, this writes below the current directory.
    let out = env::var_os("OUT_DIR").map_or_else(PathBuf::new, PathBuf::from);
    let target = out.join("bpf");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&source)
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            "bpfel-unknown-none",
        ])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .env("RUSTC_BOOTSTRAP", "1")
        // The outer build's flags and wrappers are for the host.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status();
    match status {
        Ok(status) if status.success() => {}
        other => {
            eprintln!(
                "building the BPF programs failed ({other:?}); `make setup` installs what it needs"
            );
            std::process::exit(1);
        }
    }
    let object = target.join("bpfel-unknown-none/release/deeptrace-bpf");
    println!("cargo::rustc-env=DEEPTRACE_BPF_OBJECT={}", object.display());
}
