//! Exactly as many spans as there were requests, by the servers' own counts.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::collector::{self, Collector, Finished, Options};
use integration_tests::exported::Span;
use integration_tests::nginx::Nginx;
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox, free_ports, uninterrupted};

/// Requests of each test over HTTP; Redis gets ten times as many commands. `REQUESTS=1000` in the
/// environment asks for fewer, for a machine that is slow (`make vm`).
const REQUESTS: usize = 10_000;
const RUN_LIMIT: Duration = Duration::from_mins(1);

fn asked() -> usize {
    let number = std::env::var("REQUESTS").ok();
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or(REQUESTS)
}

/// How often something was counted, by a name.
type Tally = BTreeMap<String, usize>;

fn skip(programs: &[&str]) -> bool {
    let why = programs::why_not(programs).or_else(collector::why_not);
    if let Some(why) = &why {
        println!("skipped: exact counts: {why}");
    }
    why.is_some()
}

fn run(sandbox: &Sandbox, name: &str, words: &[&str]) -> Result<()> {
    let program = programs::find(words[0]).context("it was found before")?;
    let mut command = Command::new(program);
    command.args(&words[1..]);
    let begun = Instant::now();
    let mut process = sandbox.spawn(name, &command, Output::Log)?;
    let ended = process.wait(RUN_LIMIT, &uninterrupted())?;
    let ended = ended.with_context(|| format!("{words:?} takes longer than {RUN_LIMIT:?}"))?;
    ensure!(ended.success(), "{words:?} {ended}\n{}", process.logged());
    println!("{}: {:?}", words.join(" "), begun.elapsed());
    process.stop()?;
    Ok(())
}

fn tally(names: impl Iterator<Item = String>) -> Tally {
    let mut tally = Tally::new();
    for name in names {
        *tally.entry(name).or_default() += 1;
    }
    tally
}

/// As nginx's access log has it: port, method, target, status.
fn served(span: &Span) -> String {
    let number = |key| span.number(key).unwrap_or(0);
    format!(
        "{} {} {} {}",
        number("server.port"),
        span.text("http.request.method"),
        span.text("url.path"),
        number("http.response.status_code"),
    )
}

fn of_kind<'a>(finished: &'a Finished, kind: &str) -> impl Iterator<Item = &'a Span> {
    let spans = finished.spans.iter();
    spans.filter(move |span| span.kind == kind)
}

/// `ab` against nginx; each way of a request is counted by nginx's log.
fn check_http(keep_alive: bool, path: &str) -> Result<()> {
    if skip(&["nginx", "ab"]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let nginx = Nginx::start(&sandbox)?;
    let (front, back) = (nginx.front, nginx.back);
    let options = Options {
        ports: vec![front, back],
        ..Options::default()
    };
    let collector = Collector::start(&sandbox, &options)?;
    let (requests, url) = (
        asked().to_string(),
        format!("http://127.0.0.1:{front}{path}"),
    );
    let mut words = vec!["ab", "-q", "-n", &requests, "-c", "8", &url];
    if keep_alive {
        words.insert(1, "-k");
    }
    run(&sandbox, "ab", &words)?;
    let finished = collector.stop()?;
    let truth = tally(nginx.stop()?.into_iter());
    let proxied = path.starts_with("/proxied");
    let mut expected = Tally::from([(format!("{front} GET {path} 200"), asked())]);
    if proxied {
        expected.insert(format!("{back} GET {path} 200"), asked());
    }
    ensure!(truth == expected, "nginx served {truth:?}");
    let counted = tally(of_kind(&finished, "server").map(served));
    ensure!(
        counted == truth,
        "spans {counted:?}, requests {truth:?}\n{}",
        finished.said.join("\n")
    );
    let calls = of_kind(&finished, "client").count();
    ensure!(
        calls == if proxied { asked() } else { 0 },
        "{calls} client spans"
    );
    finished.check()?;
    if proxied {
        check_ways(&finished)?;
    }
    Ok(())
}

/// From the front's server span over its one client span to the back's server span, each time.
fn check_ways(finished: &Finished) -> Result<()> {
    let by_id: BTreeMap<&str, &Span> = finished
        .spans
        .iter()
        .map(|span| (span.span_id.as_str(), span))
        .collect();
    let parent = |span: &Span| by_id.get(span.parent_span_id.as_str()).copied();
    let fronts = of_kind(finished, "server").filter_map(|back| {
        let call = parent(back).filter(|call| call.kind == "client")?;
        let front = parent(call).filter(|front| front.parent_span_id.is_empty())?;
        (front.trace_id == back.trace_id).then_some(front.span_id.clone())
    });
    let fronts = tally(fronts);
    ensure!(
        fronts.len() == asked() && fronts.values().all(|count| *count == 1),
        "{} of {} requests lead to one call each",
        fronts.len(),
        asked()
    );
    Ok(())
}

#[test]
fn requests_over_kept_connections_for_a_file_are_counted_exactly() -> Result<()> {
    check_http(true, "/static/page")
}

#[test]
fn requests_over_kept_connections_through_a_proxy_are_counted_exactly() -> Result<()> {
    check_http(true, "/proxied/page")
}

#[test]
fn requests_over_a_connection_each_for_a_file_are_counted_exactly() -> Result<()> {
    check_http(false, "/static/page")
}

#[test]
fn requests_over_a_connection_each_through_a_proxy_are_counted_exactly() -> Result<()> {
    check_http(false, "/proxied/page")
}

#[test]
fn pipelined_commands_are_counted_exactly() -> Result<()> {
    if skip(&["redis-server", "redis-benchmark"]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let [port] = free_ports()?;
    let mut redis = redis(&sandbox, port)?;
    redis.wait_for_port(port, &uninterrupted())?;
    let options = Options {
        ports: vec![port],
        ..Options::default()
    };
    let collector = Collector::start(&sandbox, &options)?;
    let wanted = 10 * asked();
    let (port_text, commands) = (port.to_string(), wanted.to_string());
    let benchmark = [
        "redis-benchmark",
        "-p",
        &port_text,
        "-P",
        "16",
        "-c",
        "8",
        "-n",
        &commands,
        "-t",
        "set",
    ];
    run(&sandbox, "redis-benchmark", &benchmark)?;
    let finished = collector.stop()?;
    let truth = command_stats(port)?;
    redis.stop()?;
    ensure!(truth.get("SET") == Some(&wanted), "Redis served {truth:?}");
    let name = |span: &Span| span.text("db.operation.name").to_uppercase();
    let counted = tally(of_kind(&finished, "server").map(name));
    ensure!(
        counted == truth,
        "spans {counted:?}, commands {truth:?}\n{}",
        finished.said.join("\n")
    );
    finished.check()
}

fn redis(sandbox: &Sandbox, port: u16) -> Result<Process> {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    sandbox.spawn("redis-alone", &command, Output::Log)
}

/// What Redis says it has served, before this question.
fn command_stats(port: u16) -> Result<Tally> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(RUN_LIMIT))?;
    stream.write_all(b"INFO commandstats\r\nQUIT\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        Some((name.to_uppercase().replace('|', " "), calls))
    };
    Ok(text.lines().filter_map(line).collect())
}
