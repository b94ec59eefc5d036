//! Hosts that do not allow what the collector needs: said with what to do about it.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::sandbox::{Sandbox, free_ports};

use crate::run::{Ended, command, program, run, skipped};

const CONFIG: &str = "\
receivers: {ebpf: {select: [{action: include, @CONDITION@}]}}
exporters: {debug: {}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @PORT@}}}}]}}
  pipelines: {traces: {receivers: [ebpf], exporters: [debug]}}
";

const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// A sandbox that others may look into, with a configuration of one rule and a free port.
fn open_sandbox(condition: &str) -> Result<Sandbox> {
    let [port] = free_ports()?;
    let config = CONFIG.replace("@PORT@", &port.to_string());
    let sandbox = Sandbox::new()?;
    fs::set_permissions(sandbox.dir(), Permissions::from_mode(0o755))?;
    let config = config.replace("@CONDITION@", condition);
    fs::write(sandbox.dir().join("config.yaml"), config)?;
    Ok(sandbox)
}

/// A copy of the program: the build may lie where others cannot look.
fn reachable_program(sandbox: &Sandbox) -> Result<PathBuf> {
    let copy = sandbox.dir().join("deeptrace-collector");
    if !copy.exists() {
        fs::copy(program().context("no deeptrace-collector")?, &copy)?;
    }
    Ok(copy)
}

/// What the collector says with these capabilities alone, by number: older setprivs do not know
/// the names. It is stopped after two seconds.
fn with_capabilities(sandbox: &Sandbox, capabilities: &[u32]) -> Result<Ended> {
    let mut set = String::from("-all");
    for number in capabilities {
        write!(set, ",+cap_{number}")?;
    }
    let mut command = Command::new("setpriv");
    command.args(NOBODY);
    command.arg(format!("--inh-caps={set}"));
    command.arg(format!("--ambient-caps={set}"));
    command.arg(format!("--bounding-set={set}"));
    command.args(["timeout", "--preserve-status", "-s", "TERM", "2"]);
    command.arg(reachable_program(sandbox)?);
    command.args(["--config", "config.yaml"]);
    run(sandbox, &command)
}

const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

#[test]
fn without_privileges_it_says_which_ones_it_needs() -> Result<()> {
    if skipped("a collector without privileges", &["setpriv", "timeout"]) {
        return Ok(());
    }
    let sandbox = open_sandbox("listen_port: 1")?;
    let remedy = "not allowed to load BPF programs; run as root or grant CAP_BPF and CAP_PERFMON";
    let blind = "rules with listen_port or peer_port pass them over: add CAP_SYS_PTRACE and \
                 CAP_DAC_READ_SEARCH";
    let cases: [(&[u32], i32, Option<&str>); 6] = [
        (&[], 1, Some(remedy)),
        (&[CAP_BPF], 1, Some(remedy)),
        (&[CAP_PERFMON], 1, Some(remedy)),
        (&[CAP_BPF, CAP_PERFMON], 0, Some(blind)),
        (&[CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE], 0, Some(blind)),
        (
            &[CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH],
            0,
            None,
        ),
    ];
    for (capabilities, code, said) in cases {
        let ended = with_capabilities(&sandbox, capabilities)?;
        let right = match said {
            Some(said) => ended.said.contains(said),
            None => !ended.said.contains("WARN"),
        };
        ensure!(
            ended.code == Some(code) && right,
            "{capabilities:?}: {ended:?}"
        );
    }
    Ok(())
}

#[test]
fn without_type_information_it_says_which_kernel_it_needs() -> Result<()> {
    if skipped("a collector without BTF", &["unshare", "mount"]) {
        return Ok(());
    }
    let sandbox = open_sandbox("pid: 1")?;
    let empty = sandbox.dir().join("empty");
    fs::create_dir(&empty)?;
    let script = "mount --bind \"$0\" /sys/kernel/btf && exec \"$@\"";
    let empty = empty.to_str().context("a path is text")?;
    let hidden = ["unshare", "-m", "sh", "-c", script, empty];
    let ended = run(&sandbox, &command(&hidden, &["--config", "config.yaml"])?)?;
    let remedy = "cannot read /sys/kernel/btf/vmlinux; Deeptrace needs a kernel built with \
                  CONFIG_DEBUG_INFO_BTF=y";
    ensure!(
        ended.code == Some(1) && ended.said.contains(remedy),
        "{ended:?}"
    );
    let ended = run(&sandbox, &command(&hidden, &["doctor"])?)?;
    ensure!(
        ended.code == Some(1) && ended.said.contains("BTF)  FAIL"),
        "{ended:?}"
    );
    every_failure_has_a_remedy(&ended.said)
}

#[test]
fn a_taken_metrics_port_is_named_with_its_setting() -> Result<()> {
    if skipped("a taken metrics port", &[]) {
        return Ok(());
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let sandbox = open_sandbox("pid: 1")?;
    let file = sandbox.dir().join("config.yaml");
    let config = CONFIG.replace("@PORT@", &port.to_string());
    fs::write(&file, config.replace("@CONDITION@", "pid: 1"))?;
    let ended = run(&sandbox, &command(&[], &["--config", "config.yaml"])?)?;
    let said = format!(
        "cannot serve metrics on 127.0.0.1:{port} (service::telemetry::metrics::readers): \
         Address already in use"
    );
    ensure!(
        ended.code == Some(1) && ended.said.contains(&said),
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn doctor_finds_nothing_wrong_for_root() -> Result<()> {
    if skipped("doctor", &[]) {
        return Ok(());
    }
    let sandbox = open_sandbox("pid: 1")?;
    for arguments in [&["doctor"][..], &["doctor", "--config", "config.yaml"]] {
        let ended = run(&sandbox, &command(&[], arguments)?)?;
        let works = ended.said.contains("tracing can work");
        ensure!(ended.code == Some(0) && works, "{ended:?}");
        ensure!(!ended.said.contains("FAIL"), "{ended:?}");
        ensure!(
            ended.said.contains("BPF programs                   ok"),
            "{ended:?}"
        );
    }
    Ok(())
}

#[test]
fn doctor_says_what_to_do_about_every_failure() -> Result<()> {
    if skipped("doctor without privileges", &["setpriv"]) {
        return Ok(());
    }
    let sandbox = open_sandbox("pid: 1")?;
    let mut command = Command::new("setpriv");
    command.args(NOBODY).arg(reachable_program(&sandbox)?);
    let ended = run(&sandbox, command.arg("doctor"))?;
    ensure!(ended.code == Some(1), "{ended:?}");
    for line in [
        "CAP_BPF and CAP_PERFMON missing",
        "-> run as root, or add CAP_BPF and CAP_PERFMON",
        "tracing cannot work: 2 checks failed",
    ] {
        ensure!(ended.said.contains(line), "{line} is not said\n{ended:?}");
    }
    every_failure_has_a_remedy(&ended.said)
}

fn every_failure_has_a_remedy(said: &str) -> Result<()> {
    let mut failures = 0;
    let lines: Vec<&str> = said.lines().collect();
    for pair in lines.windows(2) {
        if let [check, next] = pair
            && check.contains("  FAIL  ")
        {
            failures += 1;
            ensure!(
                next.trim_start().starts_with("-> "),
                "{check} is left alone\n{said}"
            );
        }
    }
    ensure!(failures > 0, "nothing failed\n{said}");
    Ok(())
}
