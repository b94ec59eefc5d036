//! Records that are lost and programs that die: what is left must be right.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use integration_tests::exported::Span;
use integration_tests::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

use crate::run::{Collector, Connection, Statuses, skipped, wait_for};

const CONNECTIONS: usize = 3;
/// Requests of about a KiB, four records each: several times what the ring buffer holds.
const BURST: usize = 3000;
const STATUSES: [u16; 5] = [200, 201, 404, 418, 503];

fn ask(connections: &mut [Connection], phase: &str, count: usize, padding: &str) -> Result<()> {
    for number in 0..count {
        let status = STATUSES[number % STATUSES.len()];
        let connection = &mut connections[number % CONNECTIONS];
        connection.ask(&format!("/{status}/{phase}/{number}/{padding}"))?;
    }
    Ok(())
}

/// A status that is not the one its path asks for is a span of two halves.
fn all_are_right<'a>(spans: impl Iterator<Item = &'a Span>) -> Result<()> {
    for span in spans {
        let path = span.text("url.path");
        let wanted = path
            .split('/')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = span.number("http.response.status_code");
        // A span whose response was lost says that instead.
        ensure!(
            status.is_none() || status == wanted,
            "{path} has status {status:?}"
        );
    }
    Ok(())
}

fn of_phase<'a>(spans: &'a [Span], phase: &str) -> Vec<&'a Span> {
    let infix = format!("/{phase}/");
    let is_of = |span: &&Span| span.text("url.path").contains(&infix);
    spans.iter().filter(is_of).collect()
}

/// Each request has one span with its status.
fn all_are_there(spans: &[Span], phase: &str, count: usize) -> Result<()> {
    let spans = of_phase(spans, phase);
    let mut statuses: HashMap<&str, Option<u64>> = HashMap::new();
    for span in &spans {
        statuses.insert(
            span.text("url.path"),
            span.number("http.response.status_code"),
        );
    }
    ensure!(
        spans.len() == count && statuses.len() == count,
        "{} spans of {phase} with {} paths instead of {count}",
        spans.len(),
        statuses.len()
    );
    ensure!(
        statuses.values().all(Option::is_some),
        "{phase}: a span has no status"
    );
    Ok(())
}

#[test]
fn a_full_ring_buffer_costs_its_records_and_no_later_span() -> Result<()> {
    if skipped("a full ring buffer", &["python3"]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let statuses = Statuses::start(&sandbox)?;
    let receiver = format!(
        "    ring_buffer_mib: 1\n    select: [{{action: include, listen_port: {}}}]\n",
        statuses.port
    );
    let collector = Collector::start_with(&sandbox, &receiver, &[])?;
    let pid = i32::try_from(collector.pid()).ok().and_then(Pid::from_raw);
    let pid = pid.context("a process has an id")?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(statuses.connect()?);
    }

    ask(&mut connections, "before", 30, "")?;
    wait_for("the spans before are exported", || {
        Ok(of_phase(&collector.exported()?, "before").len() == 30)
    })?;
    kill_process(pid, Signal::STOP)?;
    let burst = ask(&mut connections, "burst", BURST, &"x".repeat(1000));
    kill_process(pid, Signal::CONT)?;
    burst?;
    collector.wait_for_metric("deeptrace_kernel_lost", "reason=\"ring_full\"")?;
    // Until the buffer is empty again on every connection, records may still be lost.
    for (index, connection) in connections.iter_mut().enumerate() {
        let phase = format!("probe-{index}");
        wait_for("a probe is exported", || {
            connection.ask(&format!("/200/{phase}/"))?;
            Ok(!of_phase(&collector.exported()?, &phase).is_empty())
        })?;
    }
    ask(&mut connections, "after", 300, "")?;
    wait_for("the spans after are exported", || {
        Ok(of_phase(&collector.exported()?, "after").len() >= 300)
    })?;

    let finished = collector.stop()?;
    let lost = [("reason", "ring_full")];
    let lost = finished.summary.sum("deeptrace_kernel_lost", &lost);
    let burst = of_phase(&finished.spans, "burst").len();
    println!("{lost} records lost, {burst} of {BURST} spans made in the burst");
    ensure!(
        lost > 0 && burst < BURST,
        "nothing was lost\n{}",
        finished.said
    );
    all_are_right(finished.spans.iter()).with_context(|| finished.said.clone())?;
    all_are_there(&finished.spans, "before", 30)?;
    all_are_there(&finished.spans, "after", 300).with_context(|| finished.said.clone())
}

#[test]
fn a_program_that_ends_in_mid_request_leaves_an_error_and_hurts_nobody() -> Result<()> {
    if skipped("a program that ends in mid-request", &["python3"]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let dying = Statuses::start(&sandbox)?;
    let living = Statuses::start(&sandbox)?;
    let select = format!(
        "    select: [{{action: include, listen_port: \"{},{}\"}}]\n",
        dying.port, living.port
    );
    let collector = Collector::start_with(&sandbox, &select, &[])?;
    let mut connection = dying.connect()?;
    connection.ask("/200/last/0/")?;
    connection.send("/exit")?;
    wait_for("its last span is exported", || {
        let spans = collector.exported()?;
        Ok(spans.iter().any(|span| span.text("url.path") == "/exit"))
    })?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(living.connect()?);
    }
    ask(&mut connections, "after", 30, "")?;
    wait_for("the other's spans are exported", || {
        Ok(of_phase(&collector.exported()?, "after").len() >= 30)
    })?;
    let finished = collector.stop()?;
    all_are_right(finished.spans.iter())?;
    all_are_there(&finished.spans, "last", 1)?;
    all_are_there(&finished.spans, "after", 30)?;
    let ended = finished
        .spans
        .iter()
        .find(|span| span.text("url.path") == "/exit")
        .context("it was there")?;
    ensure!(
        ended.kind == "server" && ended.status == 2 && ended.pid() == u64::from(dying.pid()),
        "{ended:?}"
    );
    let unpaired = finished
        .summary
        .sum("deeptrace_unpaired", &[("reason", "closed")]);
    ensure!(unpaired == 1, "{unpaired} unpaired\n{}", finished.said);
    Ok(())
}
