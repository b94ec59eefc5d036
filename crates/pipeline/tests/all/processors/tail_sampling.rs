//! `tail_sampling`: what policies keep, when they are asked, and what becomes of late spans.

use super::bench::{Bench, Build, batch, batch_with, findings, span, spans};
use pipeline::Batch;
use pipeline::proto::trace::v1::span::Event;
use pipeline::proto::trace::v1::{Span, Status};

const MS: u64 = 1_000_000;

/// One policy, of this type and with these settings under its type.
fn policy(kind: &str, settings: &str) -> String {
    if kind == "always_sample" {
        return format!("{{name: {kind}, type: {kind}}}");
    }
    format!("{{name: {kind}, type: {kind}, {kind}: {settings}}}")
}

fn bench(policies: &[&str]) -> Bench {
    let policies = policies.join(", ");
    let settings = format!("decision_wait: 1s\npolicies: [{policies}]");
    Bench::new("tail_sampling", &settings)
}

fn names(out: &[Batch]) -> Vec<String> {
    let mut names: Vec<String> = out.iter().flat_map(spans).map(|span| span.name).collect();
    names.sort();
    names
}

fn with_status(code: i32, span: Span) -> Span {
    let status = Some(Status {
        code,
        ..Status::default()
    });
    Span { status, ..span }
}

fn lasting(start_ms: u64, end_ms: u64, span: Span) -> Span {
    Span {
        start_time_unix_nano: start_ms * MS,
        end_time_unix_nano: end_ms * MS,
        ..span
    }
}

/// Traces with a name each, which all their spans have.
///
/// | name | spans | ms | |
/// |---|---|---|---|
/// | fast | 1 | 5 | status OK, code=200, cached=true, route=/health |
/// | slow | 2, one inside the other | 300 | code=200, and 99 as a double |
/// | failed | 2, one after the other | 100 to 700 | an error with code=503, an event `exception` |
fn traces() -> Batch {
    let fast = span("fast").of_trace(1);
    let fast = with_status(1, lasting(0, 5, fast))
        .with("code", 200)
        .with("cached", true)
        .with("route", "/health");
    let slow = [
        lasting(0, 300, span("slow").of_trace(2)).with("code", 200),
        lasting(10, 20, span("slow").of_trace(2)).with("code", 99.0),
    ];
    let failing = lasting(600, 700, span("failed").of_trace(3)).with("code", 503);
    let event = Event {
        name: "exception".to_owned(),
        ..Event::default()
    };
    let failed = [
        lasting(100, 200, span("failed").of_trace(3)).with("cached", false),
        Span {
            events: vec![event],
            ..with_status(2, failing)
        },
    ];
    batch([fast].into_iter().chain(slow).chain(failed).collect())
}

/// Type, settings, and the traces that it wants.
const POLICIES: &[(&str, &str, &str)] = &[
    ("always_sample", "{}", "failed fast slow"),
    ("status_code", "{status_codes: [ERROR]}", "failed"),
    ("status_code", "{status_codes: [OK, ERROR]}", "failed fast"),
    ("status_code", "{status_codes: [UNSET]}", "failed slow"),
    ("latency", "{threshold_ms: 300}", "failed slow"),
    ("latency", "{threshold_ms: 301}", "failed"),
    (
        "latency",
        "{threshold_ms: 4, upper_threshold_ms: 300}",
        "fast slow",
    ),
    (
        "latency",
        "{threshold_ms: 300, upper_threshold_ms: 600}",
        "failed",
    ),
    ("numeric_attribute", "{key: code, min_value: 500}", "failed"),
    (
        "numeric_attribute",
        "{key: code, min_value: 0, max_value: 99}",
        "slow",
    ),
    (
        "numeric_attribute",
        "{key: code, min_value: 500, invert_match: true}",
        "fast slow",
    ),
    (
        "string_attribute",
        "{key: route, values: [/health, /ready]}",
        "fast",
    ),
    ("string_attribute", "{key: route, values: [health]}", ""),
    (
        "string_attribute",
        "{key: route, values: [^/h], enabled_regex_matching: true}",
        "fast",
    ),
    (
        "string_attribute",
        "{key: route, values: [/health], invert_match: true}",
        "failed slow",
    ),
    // Resources count too.
    (
        "string_attribute",
        "{key: service.name, values: [shop]}",
        "failed fast slow",
    ),
    ("boolean_attribute", "{key: cached, value: true}", "fast"),
    ("boolean_attribute", "{key: cached, value: false}", "failed"),
    ("span_count", "{min_spans: 2}", "failed slow"),
    ("span_count", "{max_spans: 1}", "fast"),
    (
        "probabilistic",
        "{sampling_percentage: 100}",
        "failed fast slow",
    ),
    (
        "ottl_condition",
        "{span: ['attributes[\"code\"] == 503']}",
        "failed",
    ),
    (
        "ottl_condition",
        "{spanevent: ['name == \"exception\"']}",
        "failed",
    ),
    (
        "ottl_condition",
        "{span: ['HasPrefix(attributes[\"route\"], \"/\")']}",
        "fast",
    ),
    (
        "and",
        "{and_sub_policy: [{type: span_count, span_count: {min_spans: 2}}, {type: status_code, status_code: {status_codes: [ERROR]}}]}",
        "failed",
    ),
    (
        "and",
        "{and_sub_policy: [{type: always_sample}, {type: string_attribute, string_attribute: {key: route, values: [/health], invert_match: true}}]}",
        "failed slow",
    ),
];

#[test]
fn policies_choose_whole_traces() {
    for (kind, settings, wanted) in POLICIES {
        let mut bench = bench(&[&policy(kind, settings)]);
        assert!(bench.process(traces()).is_empty());
        assert!(bench.wait(999).is_empty());
        let spans = names(&bench.wait(1));
        let expected = wanted.split_whitespace().flat_map(|name| {
            let spans = if name == "fast" { 1 } else { 2 };
            std::iter::repeat_n(name, spans)
        });
        let expected: Vec<&str> = expected.collect();
        assert_eq!(spans, expected, "{kind} {settings}");
    }
}

#[test]
fn one_policy_that_wants_a_trace_is_enough_unless_another_drops_it() {
    let error = policy("status_code", "{status_codes: [ERROR]}");
    let slow = policy("latency", "{threshold_ms: 300}");
    let always = policy("always_sample", "{}");
    let drop = policy(
        "drop",
        "{drop_sub_policy: [{type: string_attribute, string_attribute: {key: route, values: [/health]}}]}",
    );
    let not_health = policy(
        "string_attribute",
        "{key: route, values: [/health], invert_match: true}",
    );
    let cases: [(&[&str], &str); 5] = [
        (&[&error, &slow], "failed,failed,slow,slow"),
        (&[&always, &drop], "failed,failed,slow,slow"),
        // An inverted match that found something drops, one that found nothing keeps if
        // nobody is without an opinion.
        (&[&always, &not_health], "failed,failed,slow,slow"),
        (&[&not_health, &error], "failed,failed"),
        (&[&drop], ""),
    ];
    for (policies, expected) in cases {
        let mut bench = bench(policies);
        bench.process(traces());
        assert_eq!(
            names(&bench.wait(1_000)).join(","),
            expected,
            "{policies:?}"
        );
    }
}

#[test]
fn a_rate_lets_so_many_spans_through_a_second() {
    let rate = policy("rate_limiting", "{spans_per_second: 2}");
    let mut bench = bench(&[&rate]);
    let three = |trace| batch(vec![span("a").of_trace(trace); 3]);
    let mut kept = Vec::new();
    for trace in 1..=4 {
        bench.process(three(trace));
        kept.push(bench.wait(1_000).len());
    }
    // Room for 4 at first, then 2 more each second.
    assert_eq!(kept, [1, 1, 0, 1]);
    let bytes = policy(
        "bytes_limiting",
        "{bytes_per_second: 1, burst_capacity: 160}",
    );
    let mut bench = super::tail_sampling::bench(&[&bytes]);
    bench.process(three(1));
    bench.process(three(2));
    // A span here has about 50 bytes.
    assert_eq!(names(&bench.wait(1_000)).len(), 3);
}

#[test]
fn a_share_is_chosen_by_trace_id() {
    let share = policy("probabilistic", "{sampling_percentage: 25}");
    let mut bench = bench(&[&share]);
    // Ids that look random: FNV wants that.
    let id = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let all = (1..=4_000).map(|n| span("a").of_trace(id(n))).collect();
    bench.process(batch(all));
    let kept = names(&bench.wait(1_000)).len();
    assert!((900..1_100).contains(&kept), "{kept}");
}

#[test]
fn late_spans_follow_the_decision() {
    let mut bench = bench(&[&policy("status_code", "{status_codes: [ERROR]}")]);
    bench.process(traces());
    bench.wait(1_000);
    let late = |trace| batch(vec![span("late").of_trace(trace)]);
    assert_eq!(names(&bench.process(late(3))), ["late"]);
    assert_eq!(names(&bench.process(late(1))), [""; 0]);
    assert_eq!(names(&bench.wait(5_000)), [""; 0]);
    let late = bench.counts("otelcol_processor_tail_sampling_early_releases_from_cache_decision");
    assert_eq!(late, ["sampled=false 1", "sampled=true 1"]);
}

#[test]
fn only_so_many_traces_and_spans_wait_and_decisions_are_remembered() {
    let settings = "decision_wait: 10s\nnum_traces: 3\nmax_spans: 5\npolicies: [{name: a, type: always_sample}]";
    let mut bench = Bench::new("tail_sampling", settings);
    let one = |trace: u64| batch(vec![span(&trace.to_string()).of_trace(trace)]);
    for trace in 1..=3 {
        assert!(bench.process(one(trace)).is_empty());
    }
    // The oldest makes room.
    assert_eq!(names(&bench.process(one(4))), ["1"]);
    let many = batch(vec![span("4").of_trace(4); 4]);
    assert_eq!(names(&bench.process(many)), ["2", "3"]);
    let early = bench.counts("deeptrace_tail_sampling_early_decisions");
    assert_eq!(early, ["3"]);
    let waiting = bench.counts("otelcol_processor_tail_sampling_sampling_traces_on_memory");
    assert_eq!(waiting, ["1"]);
    assert_eq!(names(&bench.flush()), ["4"; 5]);
}

#[test]
fn a_stop_decides_by_what_is_there() {
    let mut bench = bench(&[&policy("status_code", "{status_codes: [ERROR]}")]);
    bench.process(traces());
    assert_eq!(names(&bench.flush()), ["failed", "failed"]);
}

#[test]
fn spans_come_out_with_their_resources_and_in_one_piece_each() {
    use super::bench::attribute;
    let mut bench = bench(&[&policy("always_sample", "{}")]);
    let from = |service: &str, trace| {
        let resource = vec![attribute("service.name", service)];
        batch_with(
            resource,
            vec![span(service).of_trace(trace), span(service).of_trace(9)],
        )
    };
    bench.process(from("shop", 1));
    bench.process(from("cart", 2));
    let out = bench.wait(1_000);
    assert_eq!(out.len(), 1);
    let resources = out[0].resource_spans();
    assert_eq!(resources.len(), 2);
    for resource in resources.iter() {
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        let service = super::bench::shown(&attributes[0]);
        let scope = &resource.scope_spans[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "deeptrace");
        let names: Vec<&str> = scope.spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(service, format!("service.name={}", names[0]));
        assert_eq!(names.len(), 2);
    }
}

#[test]
fn a_span_without_a_trace_is_one_of_its_own() {
    let mut bench = bench(&[&policy("span_count", "{max_spans: 1}")]);
    let lone = |id: u8| Span {
        trace_id: Vec::new(),
        span_id: vec![id; 8],
        ..span("lone")
    };
    bench.process(batch(vec![lone(1), lone(2)]));
    assert_eq!(names(&bench.wait(1_000)), ["lone", "lone"]);
}

#[test]
fn decisions_are_counted_overall_and_by_policy() {
    let mut bench = bench(&[
        &policy("status_code", "{status_codes: [ERROR]}"),
        &policy(
            "drop",
            "{drop_sub_policy: [{type: span_count, span_count: {max_spans: 1}}]}",
        ),
    ]);
    bench.process(traces());
    bench.wait(1_000);
    assert_eq!(
        bench.counts("otelcol_processor_tail_sampling_new_trace_id_received"),
        ["3"]
    );
    assert_eq!(
        bench.counts("otelcol_processor_tail_sampling_global_count_traces_sampled"),
        [
            "sampled=false decision=dropped 1",
            "sampled=false decision=not_sampled 1",
            "sampled=true decision=sampled 1",
        ]
    );
    assert_eq!(
        bench.counts("otelcol_processor_tail_sampling_count_spans_sampled"),
        [
            "policy=drop sampled=false decision=dropped 1",
            "policy=drop sampled=false decision=not_sampled 4",
            // What is dropped is settled.
            "policy=status_code sampled=false decision=not_sampled 2",
            "policy=status_code sampled=true decision=sampled 2",
        ]
    );
}

const UNSOUND: &[(&str, &str)] = &[
    (
        "decision_wait: 1s",
        "policies: at least one policy is needed",
    ),
    ("num_traces: 0", "num_traces: must be above 0"),
    (
        "policies: [{type: always_sample}]",
        "policies::0::name: must be set",
    ),
    (
        "policies: [{name: a, type: always_sample}, {name: a, type: always_sample}]",
        "policies::1::name: is the name of another policy too",
    ),
    (
        "policies: [{name: a, latency: {threshold_ms: 5}}]",
        "policies::0::type: must be set",
    ),
    (
        "policies: [{name: a, type: latency}]",
        "policies::0::latency::threshold_ms: must be above 0",
    ),
    (
        "policies: [{name: a, type: latency, latency: {threshold_ms: 5, upper_threshold_ms: 4}}]",
        "policies::0::latency::upper_threshold_ms: must be above threshold_ms",
    ),
    (
        "policies: [{name: a, type: status_code, status_code: {status_codes: [BAD]}}]",
        "policies::0::status_code::status_codes::0: \"BAD\" is not one of UNSET, OK, ERROR",
    ),
    (
        "policies: [{name: a, type: status_code}]",
        "policies::0::status_code::status_codes: at least one of OK, ERROR, UNSET is needed",
    ),
    (
        "policies: [{name: a, type: string_attribute, string_attribute: {key: a, values: [b, '('], enabled_regex_matching: true}}]",
        "policies::0::string_attribute::values::1: \"(\" is no regular expression: unclosed group",
    ),
    (
        "policies: [{name: a, type: numeric_attribute, numeric_attribute: {min_value: 1}}]",
        "policies::0::numeric_attribute::key: must be set",
    ),
    (
        "policies: [{name: a, type: numeric_attribute, numeric_attribute: {key: a}}]",
        "policies::0::numeric_attribute::min_value: this or max_value must be set",
    ),
    (
        "policies: [{name: a, type: probabilistic}]",
        "policies::0::probabilistic::sampling_percentage: must be above 0 and at most 100",
    ),
    (
        "policies: [{name: a, type: rate_limiting}]",
        "policies::0::rate_limiting::spans_per_second: must be above 0",
    ),
    (
        "policies: [{name: a, type: span_count}]",
        "policies::0::span_count::min_spans: this or max_spans must be above 0",
    ),
    (
        "policies: [{name: a, type: and}]",
        "policies::0::and::and_sub_policy: at least one policy is needed",
    ),
    (
        "policies: [{name: a, type: drop, drop: {drop_sub_policy: [{type: and}]}}]",
        "policies::0::drop::drop_sub_policy::0::type: and, drop cannot stand here",
    ),
    (
        "policies: [{name: a, type: and, and: {and_sub_policy: [{type: latency}]}}]",
        "policies::0::and::and_sub_policy::0::latency::threshold_ms: must be above 0",
    ),
];

#[test]
fn settings_that_cannot_work_say_where_and_why() {
    for (settings, finding) in UNSOUND {
        let found = findings("tail_sampling", settings);
        let found_it = found.iter().any(|found| found == finding);
        assert!(found_it, "{settings}: {found:?}");
    }
    let found = findings("tail_sampling", "policies: [{name: a, type: composite}]");
    let expected = "policies::0::type: \"composite\" is not one of";
    assert!(found[0].starts_with(expected), "{found:?}");
}
