//! The demo application, observed: each request is one trace, and the trace is what the reply says.

use anyhow::{Context as _, Result, ensure};
use integration_tests::collector::{self, Collector};
use integration_tests::demo::{self, Demo, PROGRAMS};
use integration_tests::exported::Span;
use integration_tests::programs;
use integration_tests::traces::{ask, check_traces};

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
    let truths = ask(|number| demo.product(number)?.truth())?;
    let finished = collector.stop()?;
    demo.stop()?;
    finished.check()?;
    for span in &finished.spans {
        check_attributes(span).with_context(|| format!("{span:#?}"))?;
    }
    check_traces(&finished.spans, &truths)?;
    println!("{} spans in {} traces", finished.spans.len(), truths.len());
    Ok(())
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
