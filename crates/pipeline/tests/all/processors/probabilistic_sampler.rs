//! `probabilistic_sampler`: which spans are kept, and what their trace states say then.

use super::bench::{Bench, Build, batch, findings, span, spans};
use pipeline::proto::trace::v1::Span;

/// A span whose 56 random bits begin with these hexadecimal digits.
fn random(digits: &str) -> Span {
    let bits = u64::from_str_radix(&format!("{digits:0<14}"), 16).unwrap();
    let id = (0xabc_u128 << 64) | u128::from(bits);
    Span {
        trace_id: id.to_be_bytes().to_vec(),
        ..span("GET")
    }
}

fn state(trace_state: &str, span: Span) -> Span {
    Span {
        trace_state: trace_state.to_owned(),
        ..span
    }
}

/// The trace state of the span, if it is kept.
fn kept(settings: &str, span: Span) -> Option<String> {
    let out = Bench::new("probabilistic_sampler", settings).process(batch(vec![span]));
    let mut spans = out.iter().flat_map(spans);
    spans.next().map(|span| span.trace_state)
}

/// Mode, percentage, first digits of the randomness, trace state, and that of a span that is kept.
const DECISIONS: &[(&str, &str, &str, &str, Option<&str>)] = &[
    ("proportional", "25", "bf", "", None),
    ("proportional", "25", "c", "", Some("ot=th:c")),
    ("proportional", "10", "e666", "", Some("ot=th:e666")),
    ("proportional", "100", "0", "", Some("ot=th:0")),
    ("proportional", "200", "0", "", Some("ot=th:0")),
    ("proportional", "0", "ffffffffffffff", "", None),
    // The randomness that is given wins over that of the trace id.
    (
        "proportional",
        "50",
        "0",
        "ot=rv:90000000000000",
        Some("ot=rv:90000000000000;th:8"),
    ),
    ("proportional", "25", "f", "ot=rv:90000000000000", None),
    // Half of a half is a quarter; equalizing looks at what there was before.
    ("proportional", "50", "b", "ot=th:8", None),
    (
        "proportional",
        "50",
        "c",
        "a=1,ot=th:8",
        Some("ot=th:c,a=1"),
    ),
    ("equalizing", "50", "8", "ot=th:8", Some("ot=th:8")),
    ("equalizing", "25", "b", "ot=th:8", None),
    ("equalizing", "25", "c", "ot=th:8", Some("ot=th:c")),
    ("equalizing", "50", "c", "ot=th:c", Some("ot=th:c")),
    ("equalizing", "50", "7f", "", None),
];

#[test]
fn traces_are_chosen_by_threshold_and_the_trace_state_says_so() {
    for (mode, percentage, digits, before, after) in DECISIONS {
        let settings = format!("{{mode: {mode}, sampling_percentage: {percentage}}}");
        let kept = kept(&settings, state(before, random(digits)));
        assert_eq!(kept.as_deref(), *after, "{settings} {digits} {before}");
    }
}

#[test]
fn a_hash_chooses_the_share_that_is_asked_for_and_by_the_seed() {
    let keeps = |seed: u32, percentage: u32| -> Vec<u64> {
        let settings = format!("{{sampling_percentage: {percentage}, hash_seed: {seed}}}");
        let mut bench = Bench::new("probabilistic_sampler", &settings);
        let all = (0..4_000)
            .map(|n| span("GET").of_trace(n * 7_919 + 1))
            .collect();
        let out = bench.process(batch(all));
        let kept = out.iter().flat_map(spans);
        kept.map(|span| {
            let id: [u8; 16] = span.trace_id.try_into().unwrap();
            u64::try_from(u128::from_be_bytes(id)).unwrap()
        })
        .collect()
    };
    let quarter = keeps(0, 25);
    assert!((900..1_100).contains(&quarter.len()), "{}", quarter.len());
    // What a lower share keeps, a higher keeps too.
    let half = keeps(0, 50);
    assert!(quarter.iter().all(|id| half.contains(id)));
    assert!(quarter != keeps(1, 25));
    assert_eq!(keeps(0, 100).len(), 4_000);
    assert_eq!(keeps(0, 0).len(), 0);
}

#[test]
fn a_hash_is_told_as_randomness_that_other_samplers_decide_alike_by() {
    // FNV-1a of four zero bytes and 16 ones, computed elsewhere: 0x81c48f65.
    let id = Span {
        trace_id: vec![1; 16],
        ..span("GET")
    };
    let state = kept("{sampling_percentage: 100}", id.clone()).unwrap();
    assert_eq!(state, EXPECTED_STATE);
    let settings = "{mode: equalizing, sampling_percentage: 50}";
    let by_threshold = kept(
        settings,
        super::probabilistic_sampler::state(&state, id.clone()),
    );
    let by_hash = kept("{sampling_percentage: 50}", id);
    assert_eq!(by_threshold.is_some(), by_hash.is_some());
}

const EXPECTED_STATE: &str = "ot=rv:c26820791c4f65;th:0";

#[test]
fn a_span_may_say_that_it_is_kept_or_dropped() {
    let none = "{mode: proportional, sampling_percentage: 0}";
    let all = "{mode: proportional, sampling_percentage: 100}";
    let cases = [
        (none, random("0").with("sampling.priority", 1), true),
        (none, random("0").with("sampling.priority", 0.5), true),
        (none, random("0").with("sampling.priority", "2"), true),
        (none, random("f").with("sampling.priority", -1), false),
        (none, random("f").with("sampling.priority", "high"), false),
        (all, random("f").with("sampling.priority", 0), false),
        (all, random("f").with("sampling.priority", "0"), false),
        (all, random("f").with("sampling.priority", "high"), true),
    ];
    for (settings, span, expected) in cases {
        let shown = format!("{settings} {:?}", span.attributes);
        assert_eq!(kept(settings, span).is_some(), expected, "{shown}");
    }
    let kept = kept(none, random("0").with("sampling.priority", 1));
    assert_eq!(kept.as_deref(), Some("ot=th:0"));
}

#[test]
fn spans_that_cannot_be_decided_about_are_dropped_unless_told_otherwise() {
    let no_id = Span {
        trace_id: Vec::new(),
        ..span("GET")
    };
    let cases = [
        ("proportional", no_id, ""),
        ("proportional", state("ot=th:xyz", random("f")), "ot=th:xyz"),
        ("proportional", state("no state", random("f")), "no state"),
        // It says that it was kept with a threshold that it does not pass.
        ("equalizing", state("ot=th:8,a=1", random("7")), "a=1"),
        ("hash_seed", state("ot=th:8", random("f")), "ot=th:8"),
    ];
    for (mode, span, left) in cases {
        let shown = format!("{mode} {}", span.trace_state);
        let closed = format!("{{mode: {mode}, sampling_percentage: 50}}");
        assert_eq!(kept(&closed, span.clone()), None, "{shown}");
        let open = format!("{{mode: {mode}, sampling_percentage: 50, fail_closed: false}}");
        assert_eq!(kept(&open, span).as_deref(), Some(left), "{shown}");
    }
}

#[test]
fn decisions_are_counted_by_what_they_were_made_by() {
    let settings = "{mode: equalizing, sampling_percentage: 50}";
    let mut bench = Bench::new("probabilistic_sampler", settings);
    bench.process(batch(vec![
        random("f"),
        random("8"),
        random("0"),
        random("0").with("sampling.priority", 1),
        state("ot=rv:90000000000000", random("0")),
        state("ot=th:8", random("0")),
    ]));
    assert_eq!(
        bench.counts("otelcol_processor_probabilistic_sampler_count_traces_sampled"),
        [
            "policy=missing_randomness sampled=false 1",
            "policy=sampling_priority sampled=true 1",
            "policy=sampling_randomness sampled=true 1",
            "policy=trace_id_w3c sampled=false 1",
            "policy=trace_id_w3c sampled=true 2",
        ]
    );
}

#[test]
fn settings_that_cannot_work_say_where_and_why() {
    let cases = [
        (
            "{sampling_percentage: -1}",
            "sampling_percentage: must be between 0 and 100",
        ),
        (
            "{sampling_percentage: 1e-20}",
            "sampling_percentage: is too small to keep any trace",
        ),
        (
            "{sampling_precision: 0}",
            "sampling_precision: must be between 1 and 14",
        ),
        (
            "{sampling_precision: 15}",
            "sampling_precision: must be between 1 and 14",
        ),
        (
            "{mode: random}",
            "mode: \"random\" is not one of hash_seed, proportional, equalizing",
        ),
    ];
    for (settings, finding) in cases {
        assert_eq!(
            findings("probabilistic_sampler", settings),
            [finding],
            "{settings}"
        );
    }
}
