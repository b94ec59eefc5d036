//! Boots a virtual machine without KVM and reads what its console says.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::sandbox::{Output, Sandbox};

use crate::run::{Interrupt, command};

/// How long the machine may be on.
const LIMIT: Duration = Duration::from_mins(30);
/// Two, so that what happens on several processors at a time happens here.
const PROCESSORS: &str = "2";
const MEMORY: &str = "2G";
const QEMU: &str = "qemu-system-x86_64";

/// What a machine has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the kernel calls itself.
    pub release: String,
    /// What was run there.
    pub runs: Vec<Run>,
    /// Tests that could not be done, and why.
    pub skipped: Vec<String>,
    /// Instructions that the verifier looked at, of each program; empty before kernel 5.16.
    pub verified: Vec<u64>,
}

/// One program.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// What it was called.
    pub name: String,
    /// Its tests that passed.
    pub passed: usize,
    /// Its tests that failed.
    pub failed: usize,
    /// Its exit status; none when the machine ended before it.
    pub status: Option<i32>,
}

/// Runs the machine until it is off; gives its console, which is kept in `log`.
pub fn boot(kernel: &Path, image: &Path, log: &Path, interrupt: &Interrupt) -> Result<String> {
    let sandbox = Sandbox::new()?;
    let mut qemu = command(QEMU);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-smp", PROCESSORS, "-m", MEMORY])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .arg("-serial")
        .arg(format!("file:{}", log.display()));
    let begun = Instant::now();
    let mut machine = sandbox.spawn("machine", &qemu, Output::Log)?;
    let ended = machine.wait(LIMIT, interrupt.flag())?;
    let said = machine.logged();
    machine.stop()?;
    interrupt.check()?;
    let console = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).replace('\r', "");
    match ended {
        Some(status) => ensure!(status.success(), "{QEMU} {status}\n{said}"),
        None => bail!("still on after {:?}; {}", begun.elapsed(), log.display()),
    }
    Ok(console)
}

/// Reads a console.
pub fn read(console: &str) -> Result<Report> {
    let mut report = Report::default();
    for line in console.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("vm:"), Some("kernel")) => {
                words
                    .next()
                    .unwrap_or_default()
                    .clone_into(&mut report.release);
            }
            (Some("vm:"), Some("begin")) => report.runs.push(Run {
                name: words.next().unwrap_or_default().to_owned(),
                ..Run::default()
            }),
            (Some("vm:"), Some("end")) => {
                let run = report.runs.last_mut().context("an end before a begin")?;
                run.status = words.nth(1).and_then(|status| status.parse().ok());
            }
            (Some("skipped:"), Some(_)) => {
                let why = line.trim_start_matches("skipped: ").to_owned();
                report.skipped.push(why);
            }
            (Some("verified_insns:"), Some(count)) => report.verified.push(count.parse()?),
            (Some("test"), Some("result:")) => {
                let run = report.runs.last_mut().context("tests before a begin")?;
                run.passed += count(line, " passed");
                run.failed += count(line, " failed");
            }
            _ => {}
        }
    }
    ensure!(!report.release.is_empty(), "it did not come up:\n{console}");
    Ok(report)
}

/// `… 8 passed; 1 failed; …`
fn count(line: &str, what: &str) -> usize {
    let part = line.split(['.', ';']).find(|part| part.ends_with(what));
    let number = part.and_then(|part| part.trim().strip_suffix(what)?.parse().ok());
    number.unwrap_or(0)
}

impl Report {
    /// What is not right, if something is not.
    pub fn wrong(&self, programs: &[&str]) -> Vec<String> {
        let mut wrong = Vec::new();
        for name in programs {
            let run = self.runs.iter().find(|run| run.name == *name);
            match run.map(|run| (run.status, run.failed)) {
                Some((Some(0), 0)) => {}
                Some((Some(status), failed)) => {
                    wrong.push(format!("{name}: {failed} failed, status {status}"));
                }
                Some((None, _)) => wrong.push(format!("the machine ended during {name}")),
                None => wrong.push(format!("{name} was not run")),
            }
        }
        wrong
    }

    /// Tests that passed.
    pub fn passed(&self) -> usize {
        self.runs.iter().map(|run| run.passed).sum()
    }

    /// Tests that failed.
    pub fn failed(&self) -> usize {
        self.runs.iter().map(|run| run.failed).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\
[    0.1] something the kernel says
vm: kernel 6.1.0-50-cloud-amd64
vm: begin verify
verified_insns:\t5
verified_insns:\t1234
vm: end verify 0
vm: begin calls
skipped: namespaces: no python3
test result: ok. 13 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.89s
vm: end calls 0
vm: begin counts
test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9s
";

    #[test]
    fn a_console_tells_what_was_right_and_what_was_not() -> Result<()> {
        let report = read(&format!("{CONSOLE}vm: end counts 101\n"))?;
        assert_eq!(report.release, "6.1.0-50-cloud-amd64");
        assert_eq!(report.verified, [5, 1234]);
        assert_eq!(report.skipped, ["namespaces: no python3"]);
        assert_eq!((report.passed(), report.failed()), (16, 1));
        assert_eq!(
            report.wrong(&["verify", "calls", "counts", "more"]),
            [
                "counts: 1 failed, status 101".to_owned(),
                "more was not run".to_owned()
            ]
        );
        Ok(())
    }

    #[test]
    fn a_machine_that_ends_too_early_is_not_right() -> Result<()> {
        let wrong = read(CONSOLE)?.wrong(&["calls", "counts"]);
        assert_eq!(wrong, ["the machine ended during counts"]);
        assert!(read("Kernel panic").is_err());
        Ok(())
    }
}
