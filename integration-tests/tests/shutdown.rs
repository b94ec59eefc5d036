//! SIGTERM in the middle of load: what was captured before it is exported, in time; what there is
//! no time for is counted.

use std::collections::HashSet;
use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::collector::{self, Collector, Finished, Options};
use integration_tests::nginx::{Nginx, read_answer};
use integration_tests::programs;
use integration_tests::sandbox::Sandbox;

const CLIENTS: usize = 4;
/// Longer than `decision_wait`, so that spans wait at every stage.
const LOAD: Duration = Duration::from_secs(3);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Between two requests of a client: some thousand a second altogether.
const PAUSE: Duration = Duration::from_micros(500);

/// The target of a request, and when its response had been read.
type Completed = (String, Instant);

/// Asks one thing after the other over a connection of its own.
fn client(port: u16, number: usize, stop: &AtomicBool) -> Result<Vec<Completed>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STOP_LIMIT))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut completed = Vec::new();
    // nginx closes a connection after 1000 requests.
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if count % 900 == 899 {
            stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STOP_LIMIT))?;
            answers = BufReader::new(stream.try_clone()?);
        }
        let target = format!("/proxied/{number}/{count}");
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())?;
        read_answer(&mut answers).with_context(|| target.clone())?;
        completed.push((target, Instant::now()));
        thread::sleep(PAUSE);
    }
    Ok(completed)
}

/// What came of a stop in the middle of load.
struct Stopped {
    finished: Finished,
    signalled: Instant,
    completed: Vec<Completed>,
}

/// Has clients ask nginx while a collector is told to stop, for which it has `timeout`.
fn stop_under_load(sandbox: &Sandbox, nginx: &Nginx, timeout: &'static str) -> Result<Stopped> {
    let front = nginx.front;
    let options = Options {
        ports: vec![front, nginx.back],
        shutdown_timeout: Some(timeout),
        ..Options::default()
    };
    let collector = Collector::start(sandbox, &options)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(front, number, stop)))
            .collect();
        thread::sleep(LOAD);
        let signalled = Instant::now();
        let finished = collector.stop();
        stop.store(true, Ordering::Relaxed);
        let mut completed = Vec::new();
        for client in clients {
            match client.join() {
                Ok(asked) => completed.extend(asked?),
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(Stopped {
            finished: finished?,
            signalled,
            completed,
        })
    })
}

fn skip() -> bool {
    let why = programs::why_not(&["nginx"]).or_else(collector::why_not);
    if let Some(why) = &why {
        println!("skipped: stopping under load: {why}");
    }
    why.is_some()
}

#[test]
fn what_was_answered_before_the_signal_is_exported_within_five_seconds() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let nginx = Nginx::start(&sandbox)?;
    let Stopped {
        finished,
        signalled,
        completed,
    } = stop_under_load(&sandbox, &nginx, "5s")?;
    let before = completed.iter().filter(|(_, at)| *at < signalled);
    let before: Vec<_> = before.map(|(target, _)| target.as_str()).collect();
    ensure!(before.len() > 1000, "only {} requests", before.len());
    check_exported(&finished, &before, nginx.front, nginx.back)?;
    nginx.stop()?;
    println!(
        "{} requests before SIGTERM, {} after; it took {:?} to end",
        before.len(),
        completed.len() - before.len(),
        finished.elapsed
    );
    Ok(())
}

#[test]
fn what_there_is_no_time_for_is_counted() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let nginx = Nginx::start(&sandbox)?;
    let finished = stop_under_load(&sandbox, &nginx, "1ms")?.finished;
    nginx.stop()?;
    let said = finished.said.join("\n");
    let sum = |name| finished.summary.sum(name, &[]);
    let lost = finished
        .summary
        .sum("deeptrace_lost_spans", &[("reason", "shutdown")]);
    ensure!(lost > 0, "there was time for everything\n{said}");
    let (made, exported) = (sum("deeptrace_spans"), finished.spans.len() as u64);
    ensure!(
        made == exported + lost,
        "{made} spans were made, {exported} exported, {lost} lost\n{said}"
    );
    Ok(())
}

/// Both of nginx's spans of every request are there, in time and without a loss.
fn check_exported(finished: &Finished, before: &[&str], front: u16, back: u16) -> Result<()> {
    let said = finished.said.join("\n");
    ensure!(finished.status.success(), "{}\n{said}", finished.status);
    ensure!(
        finished.elapsed < STOP_LIMIT,
        "it took {:?}",
        finished.elapsed
    );
    let exported: HashSet<_> = finished
        .spans
        .iter()
        .filter(|span| !span.attributes.contains_key("deeptrace.incomplete"))
        .filter(|span| span.number("http.response.status_code") == Some(200))
        .filter_map(|span| {
            let side = match (span.kind, span.number("server.port")) {
                ("server", Some(port)) if port == u64::from(front) => "front",
                ("server", Some(port)) if port == u64::from(back) => "back",
                _ => return None,
            };
            Some((side, span.text("url.path")))
        })
        .collect();
    let missing: Vec<_> = before
        .iter()
        .flat_map(|target| [("front", *target), ("back", *target)])
        .filter(|request| !exported.contains(request))
        .collect();
    ensure!(
        missing.is_empty(),
        "{} spans of {} requests are not there, the first {:?}\n{said}",
        missing.len(),
        before.len(),
        missing.first()
    );
    for name in [
        "deeptrace_kernel_lost",
        "deeptrace_lost_spans",
        "deeptrace_dropped",
    ] {
        let lost = finished.summary.sum(name, &[]);
        ensure!(lost == 0, "{name} is {lost}\n{said}");
    }
    Ok(())
}
