//! Backends that take nothing: the collector keeps running, counts what it lost, and stops in time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::sandbox::{Sandbox, free_ports};

use crate::run::{Collector, Statuses, skipped, wait_for};

/// What a backend does with a connection.
type Manners = fn(TcpStream);

/// Backends that nobody can send to, by name.
const BACKENDS: [(&str, Option<Manners>); 4] = [
    ("down", None),
    ("slow", Some(stare)),
    ("mail", Some(greet)),
    ("web", Some(show_a_page)),
];

/// Accepts and never answers.
fn stare(mut stream: TcpStream) {
    let mut piece = vec![0; 65536];
    while stream.read(&mut piece).is_ok_and(|count| count > 0) {}
}

/// Speaks another protocol.
fn greet(mut stream: TcpStream) {
    let _ = stream.write_all(b"220 mail.example ESMTP ready\r\n");
    stare(stream);
}

/// Answers everything with a page.
fn show_a_page(mut stream: TcpStream) {
    let mut piece = vec![0; 65536];
    while stream.read(&mut piece).is_ok_and(|count| count > 0) {
        let page = "<html>It works!</html>";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
            page.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn listen(manners: Manners) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    // Ends with the test program.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || manners(stream));
        }
    });
    Ok(port)
}

/// An exporter of each kind for each backend.
fn exporters(settings: &str) -> Result<Vec<(String, String)>> {
    let mut exporters = Vec::new();
    for (name, manners) in BACKENDS {
        let port = match manners {
            Some(manners) => listen(manners)?,
            None => free_ports::<1>()?[0],
        };
        for kind in ["otlp_grpc", "otlp_http"] {
            let endpoint = format!("endpoint: \"http://127.0.0.1:{port}\"");
            exporters.push((
                format!("{kind}/{name}"),
                format!("{{{endpoint}{settings}}}"),
            ));
        }
    }
    Ok(exporters)
}

const FAILED: &str = "otelcol_exporter_send_failed_spans";

#[test]
fn backends_that_take_nothing_cost_their_spans_and_nothing_else() -> Result<()> {
    if skipped("bad backends", &["python3"]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let statuses = Statuses::start(&sandbox)?;
    let exporters = exporters(
        ", timeout: 300ms, retry_on_failure: {initial_interval: 50ms, max_interval: 100ms, \
         max_elapsed_time: 600ms}",
    )?;
    let collector = Collector::start(&sandbox, statuses.port, &exporters)?;
    let mut connection = statuses.connect()?;
    for number in 0..20 {
        connection.ask(&format!("/200/first/{number}"))?;
    }
    for (name, _) in &exporters {
        collector.wait_for_metric(FAILED, &format!("\"{name}\""))?;
    }
    for number in 0..20 {
        connection.ask(&format!("/200/second/{number}"))?;
    }
    wait_for("the file has all spans", || {
        Ok(collector.exported()?.len() == 40)
    })?;
    let finished = collector.stop()?;
    check(&finished.summary, &exporters, &finished.said)
}

#[test]
fn a_stop_does_not_wait_for_backends() -> Result<()> {
    if skipped("stopping with bad backends", &["python3"]) {
        return Ok(());
    }
    for settings in ["", ", retry_on_failure: {max_elapsed_time: 0}"] {
        let sandbox = Sandbox::new()?;
        let statuses = Statuses::start(&sandbox)?;
        let exporters = exporters(settings)?;
        let collector = Collector::start(&sandbox, statuses.port, &exporters)?;
        let mut connection = statuses.connect()?;
        for number in 0..40 {
            connection.ask(&format!("/200/{number}"))?;
        }
        wait_for("the file has all spans", || {
            Ok(collector.exported()?.len() == 40)
        })?;
        let finished = collector.stop()?;
        check(&finished.summary, &exporters, &finished.said)?;
    }
    Ok(())
}

#[test]
fn a_stop_ends_exporters_that_hold_up_their_pipeline_and_counts_every_span() -> Result<()> {
    if skipped("stopping with blocked pipelines", &["python3"]) {
        return Ok(());
    }
    for settings in [
        ", sending_queue: {enabled: false}",
        ", sending_queue: {queue_size: 1, num_consumers: 1, block_on_overflow: true, batch: null}",
    ] {
        let sandbox = Sandbox::new()?;
        let statuses = Statuses::start(&sandbox)?;
        let exporters = exporters(settings)?;
        let collector = Collector::start(&sandbox, statuses.port, &exporters)?;
        let mut connection = statuses.connect()?;
        for number in 0..400 {
            connection.ask(&format!("/200/{number}"))?;
            if number % 40 == 0 {
                // A batch of its own.
                sleep(Duration::from_millis(120));
            }
        }
        let said = collector.stop()?;
        let (summary, said) = (said.summary, said.said);
        let made = summary.sum("deeptrace_spans", &[]);
        let refused = summary.sum("otelcol_receiver_refused_spans", &[]);
        let lost =
            |component: &str| summary.sum("deeptrace_lost_spans", &[("component", component)]);
        ensure!(made >= 400, "{settings}: {made} spans made\n{said}");
        let missing = refused + lost("pipelines/traces");
        for (name, _) in &exporters {
            // The batch in hand may count twice, at who held it up and as not handed on.
            let lost = missing + lost(&format!("exporters/{name}"));
            ensure!(
                lost >= made,
                "{settings}: {name} lost {lost} of {made}\n{said}"
            );
        }
        let sent = summary.sum("otelcol_exporter_sent_spans", &[]);
        ensure!(
            sent + missing >= made,
            "{settings}: {sent} of {made} in the file\n{said}"
        );
    }
    Ok(())
}

#[test]
fn a_log_that_nobody_reads_does_not_end_it() -> Result<()> {
    if skipped("a broken log pipe", &["python3"]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let statuses = Statuses::start(&sandbox)?;
    // Every batch that is lost is worth a line.
    let exporters = exporters(", timeout: 100ms, retry_on_failure: {enabled: false}")?;
    let mut collector = Collector::start_unheard(&sandbox, statuses.port, &exporters)?;
    let mut connection = statuses.connect()?;
    connection.ask("/200/first/")?;
    for (name, _) in &exporters {
        collector.wait_for_metric(FAILED, &format!("\"{name}\""))?;
    }
    connection.ask("/200/second/")?;
    wait_for("the file has both spans", || {
        Ok(collector.exported()?.len() == 2)
    })?;
    collector.end()?;
    Ok(())
}

/// Every span is in the file, and lost for everybody else with a reason.
fn check(
    summary: &integration_tests::exported::Summary,
    exporters: &[(String, String)],
    said: &str,
) -> Result<()> {
    let sent = summary.sum("otelcol_exporter_sent_spans", &[]);
    ensure!(sent == 40, "{sent} spans sent\n{said}");
    for (name, _) in exporters {
        let failed = summary.sum(FAILED, &[("exporter", name)]);
        let component = format!("exporters/{name}");
        let lost = summary.sum("deeptrace_lost_spans", &[("component", &component)]);
        ensure!(
            failed == 40 && lost == 40,
            "{name}: {failed} failed, {lost} lost\n{said}"
        );
    }
    Ok(())
}
