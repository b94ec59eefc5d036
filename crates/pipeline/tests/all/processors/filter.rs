//! `filter`: what is dropped, and what is wrong with a configuration.

use super::bench::{Bench, Build, attribute, batch, findings, span, spans};
use pipeline::proto::trace::v1::Span;
use pipeline::proto::trace::v1::span::Event;

fn events(names: &[&str]) -> Vec<Event> {
    let event = |name: &&str| Event {
        name: (*name).to_owned(),
        attributes: vec![attribute("level", "debug")],
        ..Event::default()
    };
    names.iter().map(event).collect()
}

fn requests() -> Vec<Span> {
    vec![
        span("GET /health").with("url.path", "/health"),
        span("GET /cart").with("http.response.status_code", 200),
        span("POST /cart").with("http.response.status_code", 500),
    ]
}

#[test]
fn spans_for_which_one_condition_holds_are_dropped() {
    let all = ["GET /health", "GET /cart", "POST /cart"];
    let cases: [(&str, &[&str]); 6] = [
        (
            "trace_conditions: ['span.attributes[\"url.path\"] == \"/health\"']",
            &all[1..],
        ),
        (
            "trace_conditions: ['IsMatch(span.name, \"^GET\")', 'span.attributes[\"http.response.status_code\"] >= 500']",
            &[],
        ),
        (
            "trace_conditions: ['resource.attributes[\"service.name\"] == \"other\"']",
            &all,
        ),
        (
            "traces: {span: ['name == \"GET /cart\"']}",
            &["GET /health", "POST /cart"],
        ),
        (
            "traces: {span: ['attributes[\"http.response.status_code\"] != nil']}",
            &all[..1],
        ),
        ("traces: {span: ['not IsRootSpan()']}", &all),
    ];
    for (settings, kept) in cases {
        let mut bench = Bench::new("filter", settings);
        let out = bench.process(batch(requests()));
        let names: Vec<String> = out.iter().flat_map(spans).map(|span| span.name).collect();
        assert_eq!(names, kept, "{settings}");
        // What is left without spans does not travel on.
        assert_eq!(out.len(), usize::from(!kept.is_empty()), "{settings}");
        let dropped = bench.counts("otelcol_processor_filter_spans_filtered");
        let expected = (kept.len() < 3).then(|| (3 - kept.len()).to_string());
        assert_eq!(dropped, Vec::from_iter(expected), "{settings}");
    }
}

#[test]
fn events_are_dropped_by_conditions_of_their_own() {
    let cases: [(&str, &[&str]); 3] = [
        ("traces: {spanevent: ['name == \"a\"']}", &["b", "c"]),
        (
            "trace_conditions: ['spanevent.name != \"b\" and span.name == \"GET\"']",
            &["b"],
        ),
        (
            "traces: {spanevent: ['attributes[\"level\"] == \"info\"']}",
            &["a", "b", "c"],
        ),
    ];
    for (settings, kept) in cases {
        let mut bench = Bench::new("filter", settings);
        let span = Span {
            events: events(&["a", "b", "c"]),
            ..span("GET")
        };
        let out = bench.process(batch(vec![span]));
        let left: Vec<Span> = out.iter().flat_map(spans).collect();
        let names: Vec<&str> = left[0]
            .events
            .iter()
            .map(|event| event.name.as_str())
            .collect();
        assert_eq!(names, kept, "{settings}");
        let dropped = bench.counts("deeptrace_filter_span_events_filtered");
        let expected = (kept.len() < 3).then(|| (3 - kept.len()).to_string());
        assert_eq!(dropped, Vec::from_iter(expected), "{settings}");
    }
}

#[test]
fn a_condition_without_an_answer_counts_and_does_what_error_mode_says() {
    // The first two spans have no such attribute, or none that is a text.
    let condition = "trace_conditions: ['HasPrefix(span.attributes[\"url.path\"], \"/h\")']";
    for (error_mode, kept) in [("ignore", 2), ("silent", 2), ("propagate", 0)] {
        let settings = format!("error_mode: {error_mode}\n{condition}");
        let mut bench = Bench::new("filter", &settings);
        let out = bench.process(batch(requests()));
        assert_eq!(out.iter().flat_map(spans).count(), kept, "{error_mode}");
        assert_eq!(
            bench.counts("deeptrace_filter_errors"),
            ["2"],
            "{error_mode}"
        );
        let lost = bench.counts("deeptrace_lost_spans");
        let expected = (kept == 0).then_some("component=processors/filter reason=no_answer 3");
        assert_eq!(lost, Vec::from_iter(expected), "{error_mode}");
    }
}

#[test]
fn settings_that_cannot_work_say_where_and_why() {
    let cases = [
        ("", "trace_conditions: at least one condition is needed"),
        (
            "trace_conditions: ['span.name = \"a\"']",
            "trace_conditions::0: column 11: unexpected '=': to compare, write ==, in: span.name = \"a\"",
        ),
        (
            "traces: {span: ['attributes[\"a\"]']}",
            "traces::span::0: column 16: expected a comparison such as ==, got the end, in: attributes[\"a\"]",
        ),
        (
            "trace_conditions: ['true']\nerror_mode: loud",
            "error_mode: \"loud\" is not one of ignore, silent, propagate",
        ),
    ];
    for (settings, finding) in cases {
        let found = findings("filter", settings);
        assert!(
            found.iter().any(|found| found == finding),
            "{settings}: {found:?}"
        );
    }
}
