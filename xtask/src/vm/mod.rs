//! `cargo xtask vm`: the one BPF object on other kernels, in QEMU.
//!
//! What runs there is what runs here: the collector's release build and the integration tests
//! `calls` (each system call on each kind of socket, offsets and sequence numbers compared with what
//! really happened) and `counts` (as many spans as requests, each linked, by the servers' own
//! counts). The image holds them with their libraries and servers as they lie on this machine; only
//! the kernel, and a busybox for the shell, come from elsewhere. `docs/kernels.md` has the results.

mod archive;
mod guest;
mod image;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use integration_tests::compile::{c_program, home};
use integration_tests::programs::find;
use integration_tests::workload;

use crate::run::{self, Interrupt, cargo, command, root, target_dir};
use crate::setup;
use archive::{Archive, NEWEST};
use guest::Report;
use image::{Image, plain};

/// The kernels of Debian's last releases, and the newest that there is.
const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", NEWEST];
const INIT: &str = include_str!("init.sh");
/// What the tests start. `counts` skips what it does not find.
const SERVERS: [&str; 4] = ["nginx", "ab", "redis-server", "redis-benchmark"];
const RUNS: [&str; 4] = ["doctor", "verify", "calls", "counts"];

/// What to boot.
#[derive(Args)]
pub struct Options {
    /// Versions, as `6.1`; `newest` is the newest that Debian has. The releases' own and the newest
    /// without any.
    kernels: Vec<String>,
    /// Requests of each test that counts; Redis gets ten times as many commands.
    #[arg(long, default_value_t = 500)]
    requests: u32,
}

/// Boots each kernel, and says in a table what came of it.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let archive = open(interrupt)?;
    let mut wanted = options.kernels.clone();
    if wanted.is_empty() {
        wanted = KERNELS.map(str::to_owned).to_vec();
    }
    let fetch = |version: String| (archive.kernel(&version), version);
    let kernels: Vec<_> = wanted.into_iter().map(fetch).collect();
    let image = make_image(&archive, &everything(options.requests), interrupt)?;
    let mut table = Table::default();
    let count = kernels.len();
    for (kernel, version) in kernels {
        interrupt.check()?;
        let begun = Instant::now();
        let outcome = kernel.and_then(|kernel| boot(&version, &kernel, &image, interrupt));
        table.add(&version, outcome, begun.elapsed().as_secs());
    }
    interrupt.check()?;
    print!("\n{}", table.rows);
    for why in &table.skipped {
        println!("skipped: {why}");
    }
    ensure!(
        table.wrong.is_empty(),
        "not right:\n{}",
        table.wrong.join("\n")
    );
    println!("vm: one object, {count} kernels, all right");
    Ok(())
}

/// What came of a kernel with [`few`] tests.
pub enum Oldest {
    /// It cannot be booted here.
    Skipped(String),
    /// It was booted: what was done, and what was not right.
    Booted(Report, Vec<String>),
}

/// Boots the oldest kernel for `make test`, which has no time for every test.
pub fn oldest(interrupt: &Interrupt) -> Result<Oldest> {
    let version = KERNELS[0];
    let had = open(interrupt).and_then(|archive| {
        archive.busybox()?;
        Ok((archive.kernel(version)?, archive))
    });
    let (kernel, archive) = match had {
        Ok(had) => had,
        Err(error) => {
            interrupt.check()?;
            return Ok(Oldest::Skipped(format!("kernel {version}: {error:#}")));
        }
    };
    let image = make_image(&archive, &few(), interrupt)?;
    let report = boot(version, &kernel, &image, interrupt)?;
    let wrong = report.wrong(&RUNS);
    Ok(Oldest::Booted(report, wrong))
}

/// Gets what is needed, but for the kernels.
fn open(interrupt: &Interrupt) -> Result<Archive<'_>> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "the virtual machines are x86-64, and run what was built here"
    );
    setup::for_vm(interrupt)?;
    Archive::open(&target_dir().join("vm"), interrupt)
}

fn boot(version: &str, kernel: &Path, image: &Path, interrupt: &Interrupt) -> Result<Report> {
    println!("vm: booting {version}");
    let log = target_dir().join("vm").join(format!("{version}.log"));
    let console = guest::boot(kernel, image, &log, interrupt)?;
    guest::read(&console)
}

#[derive(Default)]
struct Table {
    rows: String,
    skipped: Vec<String>,
    wrong: Vec<String>,
}

impl Table {
    fn add(&mut self, version: &str, outcome: Result<Report>, seconds: u64) {
        if self.rows.is_empty() {
            self.row([
                "kernel", "passed", "failed", "skipped", "verified", "result", "s",
            ]);
        }
        let report = match outcome {
            Ok(report) => report,
            Err(error) => {
                let seconds = seconds.to_string();
                self.row([version, "-", "-", "-", "-", "NOT RUN", &seconds]);
                self.wrong.push(format!("{version}: {error:#}"));
                return;
            }
        };
        let wrong = report.wrong(&RUNS);
        let verified = match (report.verified.iter().max(), report.verified.len()) {
            (Some(most), count) => {
                let sum: u64 = report.verified.iter().sum();
                format!("{sum} in {count}, at most {most}")
            }
            (None, _) => "not told".to_owned(),
        };
        self.row([
            &report.release,
            &report.passed().to_string(),
            &report.failed().to_string(),
            &report.skipped.len().to_string(),
            &verified,
            if wrong.is_empty() { "ok" } else { "WRONG" },
            &seconds.to_string(),
        ]);
        for what in wrong {
            self.wrong.push(format!("{version}: {what}"));
        }
        for why in report.skipped {
            if !self.skipped.contains(&why) {
                self.skipped.push(why);
            }
        }
    }

    fn row(&mut self, [kernel, passed, failed, skipped, verified, result, seconds]: [&str; 7]) {
        // Writing to a string does not fail.
        let _ = writeln!(
            self.rows,
            "{kernel:<30} {passed:>6} {failed:>6} {skipped:>7}  {verified:<28} {result:<7} {seconds:>4}"
        );
    }
}

/// What was built here for the image.
struct Programs {
    collector: PathBuf,
    calls: PathBuf,
    counts: PathBuf,
}

impl Programs {
    fn build(interrupt: &Interrupt) -> Result<Self> {
        println!("vm: building the collector and the tests");
        run::run(
            cargo().args(["build", "-q", "--release", "-p", "collector"]),
            interrupt,
        )?;
        let mut tests = cargo();
        tests.args(["test", "-q", "-p", "integration-tests", "--no-run"]);
        tests.args(["--test", "calls", "--test", "counts"]);
        run::run(&mut tests, interrupt)?;
        // Built already: this only asks where they are.
        let output = tests.arg("--message-format=json").output()?;
        let messages = String::from_utf8(output.stdout)?;
        let test = |name: &str| -> Result<PathBuf> {
            let program = messages.lines().find_map(|line| executable(line, name));
            program.with_context(|| format!("cargo does not say where the test {name} is"))
        };
        Ok(Self {
            collector: plain(&target_dir().join("release/deeptrace-collector"))?,
            calls: test("calls")?,
            counts: test("counts")?,
        })
    }
}

/// The program in a message of cargo, if it is of that target.
fn executable(message: &str, target: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let of_target = message["target"]["name"] == target;
    let program = message["executable"].as_str().filter(|_| of_target)?;
    Some(program.into())
}

/// What the machine runs, as lines of shell; the words in capitals stand for the programs.
fn everything(requests: u32) -> String {
    format!(
        "run doctor COLLECTOR doctor\n\
         run verify verify COLLECTOR CONFIG\n\
         run calls CALLS --show-output\n\
         REQUESTS={requests} run counts COUNTS --show-output\n"
    )
}

/// Some of it, in less than a minute.
fn few() -> String {
    "run doctor COLLECTOR doctor\n\
     run verify verify COLLECTOR CONFIG\n\
     run calls CALLS --show-output bytes_that losses:: streams::a_connection\n\
     REQUESTS=100 run counts COUNTS --show-output requests_over_kept_connections_through\n"
        .to_owned()
}

fn make_image(archive: &Archive<'_>, tests: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    let busybox = archive.busybox()?;
    let programs = Programs::build(interrupt)?;
    let path = target_dir().join("vm/image");
    let mut image = Image::create(&path)?;
    add_shell(&mut image, &busybox)?;
    let config = plain(&root().join("config/standalone.yaml"))?;
    image.copy(&config)?;
    // The sources first, for programs are made again when these are newer.
    for source in [workload::CALLS, workload::COMPAT] {
        image.copy(&home().join(source))?;
    }
    image.program(&plain(&c_program(workload::CALLS)?)?)?;
    // Without these the test for them is skipped there, as it is here.
    for program in [workload::compat(32), workload::compat(64)]
        .into_iter()
        .flatten()
    {
        image.program(&plain(&program)?)?;
    }
    let mut tests = tests.to_owned();
    for (word, program) in [
        ("COLLECTOR", &programs.collector),
        ("CALLS", &programs.calls),
        ("COUNTS", &programs.counts),
    ] {
        image.program(program)?;
        tests = tests.replace(word, &format!("'{}'", program.display()));
    }
    tests = tests.replace("CONFIG", &format!("'{}'", config.display()));
    for name in SERVERS {
        if let Some(program) = find(name) {
            image.program(&program)?;
        }
    }
    image.file(Path::new("/tests.sh"), tests.as_bytes())?;
    image.finish()?;
    Ok(path)
}

/// What makes it a system: the first process, a shell and its tools, a user.
fn add_shell(image: &mut Image, busybox: &Path) -> Result<()> {
    image.copy_as(busybox, Path::new("/bin/busybox"))?;
    let list = command(busybox).arg("--list").output();
    let list = String::from_utf8(list.context("running busybox")?.stdout)?;
    for tool in list.lines().filter(|tool| *tool != "busybox") {
        image.link(&Path::new("/bin").join(tool), "busybox")?;
    }
    image.file(Path::new("/init"), INIT.as_bytes())?;
    image.file(Path::new("/etc/passwd"), b"root:x:0:0:root:/root:/bin/sh\n")?;
    image.file(Path::new("/etc/group"), b"root:x:0:\n")
}
