//! The demo application, observed: each request is one trace, and the trace is what the reply says.

use std::collections::{BTreeMap, HashMap};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::collector::{self, Collector};
use integration_tests::demo::{self, Demo, PROGRAMS};
use integration_tests::exported::Span;
use integration_tests::programs;
use integration_tests::truth::{Call, expected};

const IN_SEQUENCE: u64 = 3;
const CONCURRENT: u64 = 64;
const AT_A_TIME: usize = 8;

fn check(options: &demo::Options) -> Result<()> {
    if let Some(why) = programs::why_not(&PROGRAMS).or_else(collector::why_not) {
        println!("skipped: traces of the demo application: {why}");
        return Ok(());
    }
    let demo = Demo::start(options)?;
    let traced = collector::Options {
        ports: demo.ports.to_vec(),
        ..collector::Options::default()
    };
    let collector = Collector::start(demo.sandbox(), &traced)?;
    let truths = ask(&demo)?;
    let finished = collector.stop()?;
    demo.stop()?;
    finished.check()?;
    check_traces(&finished.spans, &truths)?;
    println!("{} spans in {} traces", finished.spans.len(), truths.len());
    Ok(())
}

/// What each request caused, by its path.
fn ask(demo: &Demo) -> Result<HashMap<String, Call>> {
    let ask = |number: u64| -> Result<Call> {
        let truth = demo.product(number)?.truth()?;
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

fn check_traces(spans: &[Span], truths: &HashMap<String, Call>) -> Result<()> {
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        check_attributes(span).with_context(|| format!("{span:#?}"))?;
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

fn check_trace(trace: &[&Span], truths: &HashMap<String, Call>) -> Result<()> {
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

fn within(inner: &Span, outer: &Span) -> Result<()> {
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

fn target(server: &Span) -> String {
    match (server.text("url.path"), server.text("url.query")) {
        (path, "") => path.to_owned(),
        (path, query) => format!("{path}?{query}"),
    }
}

fn check_attributes(span: &Span) -> Result<()> {
    let absent = ["http.route", "deeptrace.incomplete", "service.name"];
    let fact = |key: &&String| key.starts_with("deeptrace.fact") || absent.contains(&key.as_str());
    let found = span.attributes.keys().find(fact);
    ensure!(found.is_none(), "{found:?} has no place in a span");
    ensure!(span.end_ns > span.start_ns, "it takes no time");
    ensure!(span.scope.0 == "deeptrace", "scope {:?}", span.scope);
    ensure!(span.pid() > 0, "no process");
    for key in [
        "host.id",
        "host.name",
        "service.instance.id",
        "process.executable.path",
    ] {
        ensure!(
            span.resource.contains_key(key),
            "{key} is not in the resource"
        );
    }
    is(span, "network.peer.address", "127.0.0.1")?;
    for key in ["network.peer.port", "server.port"] {
        ensure!(span.number(key).is_some(), "no {key}");
    }
    ensure!(!span.text("server.address").is_empty(), "no server.address");
    if span.kind == "server" {
        is(span, "client.address", "127.0.0.1")?;
    }
    if span.attributes.contains_key("db.system.name") {
        check_redis(span)
    } else {
        check_http(span)
    }
}

fn check_redis(span: &Span) -> Result<()> {
    is(span, "db.system.name", "redis")?;
    let operation = span.text("db.operation.name");
    ensure!(["GET", "HGET", "INCR"].contains(&operation), "{operation}");
    ensure!(span.name.starts_with(operation), "named {}", span.name);
    ensure!(span.status == 0, "status {}", span.status);
    Ok(())
}

fn check_http(span: &Span) -> Result<()> {
    is(span, "http.request.method", "GET")?;
    ensure!(span.name == "GET", "named {}", span.name);
    let status = span
        .number("http.response.status_code")
        .context("no status")?;
    let error_from = if span.kind == "server" { 500 } else { 400 };
    let failed = status >= error_from;
    ensure!(
        span.status == if failed { 2 } else { 0 },
        "HTTP status {status}, span status {}",
        span.status
    );
    let error = if failed {
        status.to_string()
    } else {
        String::new()
    };
    is(span, "error.type", &error)?;
    if span.kind == "server" {
        is(span, "url.scheme", "http")?;
        ensure!(span.text("url.path").starts_with('/'), "no url.path");
        ensure!(span.text("url.full").is_empty(), "url.full of a server");
    } else {
        ensure!(span.text("url.full").starts_with("http://"), "no url.full");
        ensure!(span.text("url.path").is_empty(), "url.path of a client");
    }
    Ok(())
}

fn is(span: &Span, key: &str, wanted: &str) -> Result<()> {
    let is = span.text(key);
    ensure!(is == wanted, "{key} is {is:?}, not {wanted:?}");
    Ok(())
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

#[test]
fn traces_are_what_the_replies_say() -> Result<()> {
    check(&demo::Options::default())
}

#[test]
fn traces_are_what_the_replies_say_with_keepalive_upstream() -> Result<()> {
    check(&demo::Options {
        upstream_keepalive: true,
        ..demo::Options::default()
    })
}
