//! Finds the programs that others installed.

use std::path::PathBuf;

/// The program of that name: also where only root's PATH looks, and where cargo installs.
pub fn find(name: &str) -> Option<PathBuf> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    found.or_else(|| {
        let installed = PathBuf::from(std::env::var_os("HOME")?)
            .join(".cargo/bin")
            .join(name);
        installed.is_file().then_some(installed)
    })
}

/// Why a test that needs these programs cannot run, if it cannot.
pub fn why_not(names: &[&str]) -> Option<String> {
    let missing: Vec<_> = names
        .iter()
        .copied()
        .filter(|name| find(name).is_none())
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} not found; `cargo xtask setup` installs them",
            missing.join(", ")
        )
    })
}
