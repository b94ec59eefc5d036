//! Runs other programs so that an interruption ends them too.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::sandbox::{Output, Sandbox};

/// The longest that any one program may run.
const RUN_LIMIT: Duration = Duration::from_hours(1);

/// Set once somebody wants this program to end (SIGINT, SIGTERM, SIGHUP).
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the signals.
    pub fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [1, 2, 15] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("handling signals")?;
        }
        Ok(Self(flag))
    }

    /// For those who poll it themselves.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }

    /// An error once it is set.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The build directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A command that runs in the repository's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The same cargo that runs this program. What cargo tells a program it runs about that program's
/// package is taken off, else build scripts that look at it would run again.
pub fn cargo() -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs it to its end and wants it to succeed.
pub fn run(command: &mut Command, interrupt: &Interrupt) -> Result<()> {
    let status = status(command, interrupt)?;
    ensure!(status.success(), "`{}` failed ({status})", shown(command));
    Ok(())
}

/// Runs it to its end, or ends it and all it started when interrupted (or killed).
pub fn status(command: &mut Command, interrupt: &Interrupt) -> Result<ExitStatus> {
    interrupt.check()?;
    let sandbox = Sandbox::new()?;
    let mut process = sandbox.spawn("command", command, Output::Inherited)?;
    process.wait(RUN_LIMIT, interrupt.flag())?;
    let ended = process.ended()?;
    process.stop()?;
    interrupt.check()?;
    ended.with_context(|| format!("`{}` takes too long", shown(command)))
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
