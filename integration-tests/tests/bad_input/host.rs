//! Hosts that do not allow what the collector needs: said with what to do about it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::sandbox::{Sandbox, free_ports};

use crate::run::{command, program, run, skipped};

const CONFIG: &str = "\
receivers: {ebpf: {select: [{action: include, pid: 1}]}}
exporters: {debug: {}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @PORT@}}}}]}}
  pipelines: {traces: {receivers: [ebpf], exporters: [debug]}}
";

/// A sandbox that others may look into, with a configuration and the program.
fn open_sandbox(port: u16) -> Result<Sandbox> {
    let sandbox = Sandbox::new()?;
    fs::set_permissions(sandbox.dir(), Permissions::from_mode(0o755))?;
    let config = CONFIG.replace("@PORT@", &port.to_string());
    fs::write(sandbox.dir().join("config.yaml"), config)?;
    Ok(sandbox)
}

/// The collector as a user without any privilege. The build may lie where that user cannot look.
fn unprivileged(sandbox: &Sandbox, arguments: &[&str]) -> Result<Command> {
    let copy = sandbox.dir().join("deeptrace-collector");
    fs::copy(program().context("no deeptrace-collector")?, &copy)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(copy).args(arguments);
    Ok(command)
}

#[test]
fn without_privileges_it_says_which_ones_it_needs() -> Result<()> {
    if skipped("a collector without privileges", &["setpriv"]) {
        return Ok(());
    }
    let [port] = free_ports()?;
    let sandbox = open_sandbox(port)?;
    let command = unprivileged(&sandbox, &["--config", "config.yaml"])?;
    let ended = run(&sandbox, &command)?;
    let remedy = "not allowed to load BPF programs; run as root or grant CAP_BPF and CAP_PERFMON";
    ensure!(
        ended.code == Some(1) && ended.said.contains(remedy),
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn with_too_few_privileges_for_a_rule_it_says_so() -> Result<()> {
    if skipped("a collector with few privileges", &["setpriv", "timeout"]) {
        return Ok(());
    }
    let [port] = free_ports()?;
    let sandbox = open_sandbox(port)?;
    let file = sandbox.dir().join("config.yaml");
    let config = fs::read_to_string(&file)?.replace("pid: 1", "listen_port: 1");
    fs::write(&file, config)?;
    // CAP_PERFMON and CAP_BPF by number: older setprivs do not know the names.
    let privileges = "-all,+cap_38,+cap_39";
    let mut command = unprivileged(&sandbox, &["--config", "config.yaml"])?;
    let words: Vec<OsString> = command.get_args().map(OsStr::to_owned).collect();
    let (user, words) = words
        .split_at_checked(3)
        .context("three words of setpriv")?;
    command = Command::new("setpriv");
    command.args(user);
    command.arg(format!("--inh-caps={privileges}"));
    command.arg(format!("--ambient-caps={privileges}"));
    command.args(["timeout", "--preserve-status", "-s", "TERM", "2"]);
    command.args(words);
    let ended = run(&sandbox, &command)?;
    let said = "rules with listen_port or peer_port pass them over: add CAP_SYS_PTRACE and \
                CAP_DAC_READ_SEARCH";
    ensure!(
        ended.code == Some(0) && ended.said.contains(said),
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn without_type_information_it_says_which_kernel_it_needs() -> Result<()> {
    if skipped("a collector without BTF", &["unshare", "mount"]) {
        return Ok(());
    }
    let [port] = free_ports()?;
    let sandbox = open_sandbox(port)?;
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
    let sandbox = open_sandbox(port)?;
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
    let sandbox = open_sandbox(8888)?;
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
    let sandbox = open_sandbox(8888)?;
    let ended = run(&sandbox, &unprivileged(&sandbox, &["doctor"])?)?;
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
