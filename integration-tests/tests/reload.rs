//! SIGHUP while requests run over connections that stay open: every request becomes a span, and
//! the BPF programs stay the same.

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::collector::{self, Collector, Finished, Options};
use integration_tests::nginx::{Nginx, read_answer};
use integration_tests::programs;
use integration_tests::sandbox::Sandbox;

const READ_LIMIT: Duration = Duration::from_secs(10);
/// Between two requests of a connection; nginx closes it after 1000.
const PAUSE: Duration = Duration::from_millis(10);
const TAKEN_OVER: &str = "the new configuration is running";
const NOT_SOUND: &str = "the new configuration cannot be used, the old one stays";

/// Asks over one connection until it is told to stop; gives the number of requests.
fn ask(port: u16, name: &str, stop: &AtomicBool) -> Result<usize> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        stream
            .write_all(format!("GET /{name}/{asked} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())?;
        read_answer(&mut answers).with_context(|| format!("request {asked}"))?;
        asked += 1;
        thread::sleep(PAUSE);
    }
    ensure!(
        asked < 1000,
        "{asked} requests: nginx has closed the connection"
    );
    Ok(asked)
}

/// Ids of the BPF programs that the process has open, in order.
fn program_ids(pid: u32) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(text) = std::fs::read_to_string(entry?.path()) else {
            continue; // Closed meanwhile.
        };
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        if let Some(id) = id {
            ids.push(id.trim().parse()?);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Configurations one after the other, and what the collector says to each.
fn steps(first: &str) -> Vec<(String, &'static str)> {
    let limited = first
        .replace("[span_linker]", "[memory_limiter, span_linker]")
        .replace(
            "processors:\n  span",
            "processors:\n  memory_limiter: {check_interval: 1s, limit_mib: 4000}\n  span",
        );
    let second_exporter = first.replace("[file]", "[debug, file]").replace(
        "service:",
        "  debug:\n    output_paths: [/dev/null]\nservice:",
    );
    vec![
        (first.to_owned(), TAKEN_OVER),
        (first.replace("level: none", "level: nonsense"), NOT_SOUND),
        (limited, TAKEN_OVER),
        (first.replace("wait: 2s", "wait: 1s"), TAKEN_OVER),
        (
            first.replace("[{", "[{action: include, executable: no-such-program}, {"),
            TAKEN_OVER,
        ),
        (
            first.replace("select:", "max_connections: 1000\n    select:"),
            TAKEN_OVER,
        ),
        (
            first.replace("    path:", "    append: false\n    path:"),
            TAKEN_OVER,
        ),
        (second_exporter, TAKEN_OVER),
        (String::new(), NOT_SOUND),
        (first.to_owned(), TAKEN_OVER),
    ]
}

#[test]
fn requests_on_open_connections_are_all_seen_across_sighups() -> Result<()> {
    if let Some(why) = programs::why_not(&["nginx"]).or_else(collector::why_not) {
        println!("skipped: reloads under load: {why}");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let nginx = Nginx::start(&sandbox)?;
    let options = Options {
        ports: vec![nginx.back],
        ..Options::default()
    };
    let collector = Collector::start(&sandbox, &options)?;
    let before = program_ids(collector.pid())?;
    ensure!(before.len() >= 5, "only {} BPF programs", before.len());
    let stop = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let (stop, port) = (&stop, nginx.back);
        let asking: Vec<_> = ["one", "two"]
            .into_iter()
            .map(|name| (name, scope.spawn(move || ask(port, name, stop))))
            .collect();
        let reloaded = reload_all(&collector);
        stop.store(true, Ordering::Relaxed);
        let mut asked = HashMap::new();
        for (name, thread) in asking {
            match thread.join() {
                Ok(count) => asked.insert(name, count?),
                Err(_) => bail!("a client panicked"),
            };
        }
        reloaded.map(|()| asked)
    })?;
    let after = program_ids(collector.pid())?;
    ensure!(after == before, "programs {before:?} have become {after:?}");
    let finished = collector.stop()?;
    nginx.stop()?;
    check(&finished, &asked)
}

fn reload_all(collector: &Collector) -> Result<()> {
    let first = collector.configuration()?;
    for (configuration, answer) in steps(&first) {
        thread::sleep(10 * PAUSE);
        collector.reload(&configuration, answer)?;
    }
    thread::sleep(10 * PAUSE);
    Ok(())
}

/// One server span for each request, each whole.
fn check(finished: &Finished, asked: &HashMap<&str, usize>) -> Result<()> {
    let said = finished.said.join("\n");
    ensure!(finished.status.success(), "{}\n{said}", finished.status);
    for (name, count) in asked {
        let spans = finished.spans.iter().filter(|span| {
            let path = span.text("url.path");
            span.kind == "server" && path.starts_with(&format!("/{name}/"))
        });
        let whole = spans
            .clone()
            .filter(|span| span.number("http.response.status_code") == Some(200));
        let (spans, whole) = (spans.count(), whole.count());
        ensure!(
            (spans, whole) == (*count, *count),
            "{count} requests on connection {name}, {spans} spans, {whole} of them whole\n{said}"
        );
    }
    for (name, labels, expected) in [
        ("deeptrace_kernel_lost", &[][..], 0),
        ("deeptrace_lost_spans", &[], 0),
        ("deeptrace_dropped", &[], 0),
        ("deeptrace_unpaired", &[], 0),
        ("deeptrace_config_reloads", &[("result", "taken_over")], 8),
        ("deeptrace_config_reloads", &[("result", "invalid")], 2),
        ("deeptrace_config_reloads", &[("result", "failed")], 0),
    ] {
        let count = finished.summary.sum(name, labels);
        ensure!(count == expected, "{name} is {count}\n{said}");
    }
    println!("{asked:?} requests");
    Ok(())
}

#[test]
fn a_setting_that_needs_another_capture_starts_one() -> Result<()> {
    if let Some(why) = collector::why_not() {
        println!("skipped: a capture started anew: {why}");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let options = Options {
        ports: vec![1],
        ..Options::default()
    };
    let collector = Collector::start(&sandbox, &options)?;
    let before = program_ids(collector.pid())?;
    let first = collector.configuration()?;
    let larger = first.replace("select:", "ring_buffer_mib: 32\n    select:");
    collector.reload(&larger, TAKEN_OVER)?;
    let after = program_ids(collector.pid())?;
    ensure!(before.len() == after.len(), "{before:?} {after:?}");
    ensure!(
        before.iter().all(|id| !after.contains(id)),
        "{before:?} {after:?}"
    );
    ensure!(collector.stop()?.status.success(), "it did not stop well");
    Ok(())
}
