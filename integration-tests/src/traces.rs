//! Compares traces of the demo application with what its replies say that was called.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::exported::Span;
use crate::truth::{Call, expected};

const IN_SEQUENCE: u64 = 3;
const CONCURRENT: u64 = 64;
const AT_A_TIME: usize = 8;

/// Asks for products, some one after the other and some eight at a time; gives what each request
/// caused, by its path. `get` asks for one of this number.
pub fn ask(get: impl Fn(u64) -> Result<Call> + Sync) -> Result<BTreeMap<String, Call>> {
    let ask = |number: u64| -> Result<Call> {
        let truth = get(number)?;
        ensure!(truth.clone().shape() == expected(number), "{truth:?}");
        Ok(truth)
    };
    let mut truths = (1..=IN_SEQUENCE).map(ask).collect::<Result<Vec<_>>>()?;
    let rest: Vec<u64> = (1..=CONCURRENT)
        .map(|number| IN_SEQUENCE + number)
        .collect();
    // Eight clients that ask without a pause, not waves of eight.
    thread::scope(|scope| {
        let clients: Vec<_> = (0..AT_A_TIME)
            .map(|first| {
                let mine = rest.iter().skip(first).step_by(AT_A_TIME);
                scope.spawn(move || mine.map(|number| ask(*number)).collect::<Result<Vec<_>>>())
            })
            .collect();
        for client in clients {
            match client.join() {
                Ok(asked) => truths.extend(asked?),
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    })?;
    Ok(truths
        .into_iter()
        .map(|truth| (truth.path.clone(), truth))
        .collect())
}

/// Each request is one whole trace, and the trace is the tree of calls that its reply says.
///
/// `truths`: what each request really caused, by its path.
pub fn check_traces(spans: &[Span], truths: &BTreeMap<String, Call>) -> Result<()> {
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    let mut wrong = Vec::new();
    for trace in traces.values() {
        if let Err(error) = check_trace(trace, truths) {
            wrong.push(format!("{error:#}\n{}", drawn(trace)));
        }
    }
    ensure!(
        wrong.is_empty() && traces.len() == truths.len(),
        "{} requests gave {} traces, {} of them wrong:\n{}",
        truths.len(),
        traces.len(),
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

fn check_trace(trace: &[&Span], truths: &BTreeMap<String, Call>) -> Result<()> {
    let roots: Vec<_> = trace
        .iter()
        .filter(|span| span.parent_span_id.is_empty())
        .collect();
    let [root] = roots[..] else {
        bail!("{} roots", roots.len());
    };
    let truth = truths.get(&target(root)).context("nobody asked for this")?;
    let called = call(root, trace)?;
    check_pids(root, trace, truth)?;
    let truly = comparable(truth.clone().shape());
    ensure!(
        called == truly,
        "the trace says {}, the reply {}",
        written(&called),
        written(&truly)
    );
    let count = truth.count().spans(true);
    ensure!(trace.len() == count, "{} spans, not {count}", trace.len());
    Ok(())
}

/// The tree of calls that a server span begins: each of its children is a client span of the same
/// process, and each of those has exactly one child, which is a server span.
fn call(server: &Span, trace: &[&Span]) -> Result<Call> {
    ensure!(
        server.kind == "server",
        "{} is no server span",
        named(server)
    );
    let mut calls = Vec::new();
    for client in children(server, trace) {
        ensure!(
            client.kind == "client",
            "{} is no client span",
            named(client)
        );
        ensure!(
            client.pid() == server.pid(),
            "{} is of another process than its parent",
            named(client)
        );
        within(client, server)?;
        let [callee] = children(client, trace)[..] else {
            bail!(
                "{} has {} children",
                named(client),
                children(client, trace).len()
            );
        };
        within(callee, client)?;
        for key in [
            "http.response.status_code",
            "http.request.method",
            "db.operation.name",
        ] {
            ensure!(
                client.attributes.get(key) == callee.attributes.get(key),
                "{key} differs between {} and {}",
                named(client),
                named(callee)
            );
        }
        if client.text("db.system.name").is_empty() {
            let url = client.text("url.full");
            ensure!(
                url.ends_with(&target(callee)),
                "{url} called {}",
                target(callee)
            );
        }
        calls.push(call(callee, trace)?);
    }
    let status = server.number("http.response.status_code").unwrap_or(0);
    Ok(comparable(Call {
        service: server.service().replace("redis-server", "redis"),
        path: target(server),
        status: u16::try_from(status)?,
        operation: server.text("db.operation.name").to_owned(),
        key: String::new(),
        pid: None,
        tid: None,
        calls,
    }))
}

/// The processes are those that say that they have served it.
fn check_pids(server: &Span, trace: &[&Span], truth: &Call) -> Result<()> {
    if let Some(pid) = truth.pid {
        ensure!(
            server.pid() == u64::from(pid),
            "{} is of process {}, not {pid}",
            named(server),
            server.pid()
        );
    }
    for client in children(server, trace) {
        for callee in children(client, trace) {
            let same = |call: &&Call| call.path == target(callee) && !call.path.is_empty();
            if let Some(truth) = truth.calls.iter().find(same) {
                check_pids(callee, trace, truth)?;
            }
        }
    }
    Ok(())
}

/// In the order of their beginning.
fn children<'a>(parent: &Span, trace: &[&'a Span]) -> Vec<&'a Span> {
    let mut children: Vec<_> = trace
        .iter()
        .copied()
        .filter(|span| span.parent_span_id == parent.span_id)
        .collect();
    children.sort_by_key(|span| span.start_ns);
    children
}

/// Without what traces do not show; calls that are made at the same time have no order.
fn comparable(mut call: Call) -> Call {
    call.key.clear();
    call.calls = call.calls.into_iter().map(comparable).collect();
    if call.path.starts_with("/shipping/") {
        call.calls.sort_by(|a, b| a.path.cmp(&b.path));
    }
    call
}

/// Times of two hosts are not compared.
fn within(inner: &Span, outer: &Span) -> Result<()> {
    if inner.resource.get("host.id") != outer.resource.get("host.id") {
        return Ok(());
    }
    let early = outer.start_ns.saturating_sub(inner.start_ns);
    let late = inner.end_ns.saturating_sub(outer.end_ns);
    ensure!(
        early == 0 && late == 0,
        "{} begins {early} ns before or ends {late} ns after its parent {}",
        named(inner),
        named(outer)
    );
    Ok(())
}

/// Path and query of an HTTP server span.
pub fn target(server: &Span) -> String {
    match (server.text("url.path"), server.text("url.query")) {
        (path, "") => path.to_owned(),
        (path, query) => format!("{path}?{query}"),
    }
}

fn named(span: &Span) -> String {
    let what = [span.text("url.full"), span.text("url.path")].concat();
    format!(
        "{} {} {} {what} ({})",
        span.service(),
        span.kind,
        span.name,
        span.span_id
    )
}

fn written(call: &Call) -> String {
    let calls: Vec<_> = call.calls.iter().map(written).collect();
    let own = format!("{}{} {}", call.operation, call.path, call.status);
    format!("{} {own} [{}]", call.service, calls.join(", "))
}

/// The trace, for whoever looks for what is wrong.
fn drawn(trace: &[&Span]) -> String {
    let mut spans = trace.to_vec();
    spans.sort_by_key(|span| span.start_ns);
    let first = spans.first().map_or(0, |span| span.start_ns);
    let line = |span: &&Span| {
        let why = ["deeptrace.link.method", "deeptrace.link.reason"].map(|key| span.text(key));
        let (start, took) = (
            (span.start_ns - first) / 1000,
            (span.end_ns - span.start_ns) / 1000,
        );
        format!(
            "  {start:>7} +{took:>6} us {} of {:16} {why:?}",
            named(span),
            span.parent_span_id
        )
    };
    spans.iter().map(line).collect::<Vec<_>>().join("\n")
}
