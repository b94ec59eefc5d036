//! Compiles the C sources of the demo and the workloads, once per version of the source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::programs;

/// Where this crate's own files are.
pub fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The build directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| home().join("../target"), PathBuf::from)
}

const USUAL: [&str; 5] = ["-O2", "-g", "-Wall", "-Wextra", "-Werror"];

/// Why the program of `source` cannot be had here, if it cannot: there is neither it nor `cc`.
pub fn why_not(source: &str) -> Option<String> {
    let built = built("", source).is_ok_and(|(_, current)| current);
    if built {
        return None;
    }
    programs::why_not(&["cc"])
}

/// Where the program of a source lies, and whether it is there and newer than the source.
fn built(suffix: &str, source: &str) -> Result<(PathBuf, bool)> {
    let source = home().join(source);
    let mut name = source
        .file_stem()
        .context("a source file has a name")?
        .to_owned();
    name.push(suffix);
    let program = target_dir().join("c-programs").join(name);
    let changed = fs::metadata(&source).and_then(|file| file.modified());
    let changed = changed.with_context(|| format!("looking at {}", source.display()))?;
    let made = fs::metadata(&program).and_then(|file| file.modified());
    let current = made.is_ok_and(|made| made > changed);
    Ok((program, current))
}

/// Builds the Go module in this folder (relative to this crate), and gives the program.
pub fn go_program(folder: &str) -> Result<PathBuf> {
    let folder = home().join(folder);
    let name = folder.file_name().context("a module has a name")?;
    let program = std::path::absolute(target_dir().join("go-programs").join(name))?;
    let mut build = Command::new(
        programs::find("go").context("go not found; `cargo xtask setup` installs it")?,
    );
    // Go knows by itself whether there is anything to do.
    build
        .current_dir(&folder)
        .args(["build", "-o"])
        .arg(&program);
    let built = build.output().context("running go")?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "go build: {said}");
    Ok(program)
}

/// Compiles `source` (relative to this crate) unless its program is newer, and gives the program.
pub fn c_program(source: &str) -> Result<PathBuf> {
    c_program_as("", source, &["-pthread"])
}

/// Likewise with these flags more, and these words more in the program's name.
pub fn c_program_as(suffix: &str, source: &str, flags: &[&str]) -> Result<PathBuf> {
    let (program, current) = built(suffix, source)?;
    if current {
        return Ok(program);
    }
    let dir = program.parent().context("a program has a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    // Tests that run at the same time must not see half a program.
    let unfinished = tempfile::Builder::new()
        .prefix(program.file_name().unwrap_or_default())
        .tempfile_in(dir)?
        .into_temp_path();
    let status = Command::new("cc")
        .args(USUAL)
        .args(flags)
        .arg("-o")
        .arg(&unfinished)
        .arg(home().join(source))
        .status()
        .context("running cc")?;
    ensure!(status.success(), "cc refuses {source}");
    unfinished.persist(&program)?;
    Ok(program.canonicalize()?)
}
