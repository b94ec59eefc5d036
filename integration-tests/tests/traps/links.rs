//! Whether each span's parent is the right one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use integration_tests::collector::Finished;
use integration_tests::exported::Span;

/// A service and the kind of its span: a step on the way of a request.
pub type Hop = (&'static str, &'static str);
/// The way of a request with nobody in between.
pub const DIRECT: [Hop; 2] = [("asks", "client"), ("answers", "server")];

/// The number that a span's request asked for.
pub fn asked_for(span: &Span) -> Result<u32> {
    // A client has the whole URL.
    let url = [span.text("url.path"), span.text("url.full")].concat();
    let number = url.rsplit_once("/n/").map(|(_, number)| number.parse());
    Ok(number.with_context(|| format!("nobody asks so: {span:#?}"))??)
}

/// The spans of the requests for these numbers.
pub fn ways<'a>(spans: &'a [Span], numbers: &Range<u32>) -> Result<BTreeMap<u32, Vec<&'a Span>>> {
    let mut ways: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in spans {
        let number = asked_for(span)?;
        if numbers.contains(&number) {
            ways.entry(number).or_default().push(span);
        }
    }
    Ok(ways)
}

/// The request for each number went this way: each span's parent is the one before it.
pub fn check_ways(finished: &Finished, numbers: &Range<u32>, hops: &[Hop]) -> Result<()> {
    check_parents(&finished.spans)?;
    let ways = ways(&finished.spans, numbers)?;
    ensure!(
        ways.len() == numbers.len(),
        "spans of {} of {} requests",
        ways.len(),
        numbers.len()
    );
    for (number, spans) in &ways {
        ensure!(spans.len() == hops.len(), "/n/{number} has {spans:#?}");
        let mut parent = "";
        for hop in hops {
            let next = spans.iter().find(|span| span.parent_span_id == parent);
            let next = next.with_context(|| format!("{parent:?} has no child in {spans:#?}"))?;
            ensure!((next.service(), next.kind) == *hop, "no {hop:?}: {next:#?}");
            ensure!(next.trace_id == spans[0].trace_id, "two traces: {spans:#?}");
            parent = &next.span_id;
        }
    }
    Ok(())
}

/// Whoever has a parent has the right one, and whoever has none says why.
pub fn check_parents(spans: &[Span]) -> Result<()> {
    let links = Links::of(spans, |_| true)?;
    ensure!(links.wrong.is_empty(), "{:#?}", links.wrong);
    for root in links.without {
        let reason = root.text("deeptrace.link.reason");
        ensure!(!reason.is_empty(), "it does not say why: {root:#?}");
    }
    Ok(())
}

/// Spans by how they were linked.
#[derive(Default)]
pub struct Links<'a> {
    pub right: usize,
    /// With what they are taken to be children of.
    pub wrong: Vec<[&'a Span; 2]>,
    pub without: Vec<&'a Span>,
}

impl<'a> Links<'a> {
    fn of(spans: &'a [Span], wanted: impl Fn(&Span) -> bool) -> Result<Self> {
        let with_id = spans.iter().map(|span| (span.span_id.as_str(), span));
        let by_id: HashMap<_, _> = with_id.collect();
        let mut links = Self::default();
        for span in spans.iter().filter(|span| wanted(span)) {
            if span.parent_span_id.is_empty() {
                links.without.push(span);
                continue;
            }
            let parent = by_id.get(span.parent_span_id.as_str());
            let parent = *parent.with_context(|| format!("whose child is {span:#?}"))?;
            if is_child(span, parent)? {
                links.right += 1;
            } else {
                links.wrong.push([span, parent]);
            }
        }
        Ok(links)
    }

    /// Those of a service and kind.
    pub fn at(spans: &'a [Span], hop: Hop) -> Result<Self> {
        Self::of(spans, |span| (span.service(), span.kind) == hop)
    }
}

/// It asks for the same: as the call that it serves, or as the call made for it.
fn is_child(span: &Span, parent: &Span) -> Result<bool> {
    let served = span.kind == "server";
    let by_stream = span.text("deeptrace.link.method") == "tcp_stream";
    let inside = span.pid() == parent.pid();
    Ok(asked_for(span)? == asked_for(parent)?
        && span.trace_id == parent.trace_id
        && span.kind != parent.kind
        && (served, served) == (by_stream, !inside))
}

/// All are roots, for this reason, and as many as there were requests.
pub fn check_roots(
    finished: &Finished,
    numbers: &Range<u32>,
    hop: Hop,
    reason: &str,
) -> Result<()> {
    let (service, kind) = hop;
    let of_hop = |span: &&Span| (span.service(), span.kind) == hop;
    let spans: Vec<_> = finished.spans.iter().filter(of_hop).cloned().collect();
    let ways = ways(&spans, numbers)?;
    ensure!(
        ways.len() == numbers.len() && spans.len() == numbers.len(),
        "{} spans of {} requests of {service}, {kind}",
        spans.len(),
        numbers.len()
    );
    for span in spans {
        ensure!(
            span.parent_span_id.is_empty() && span.text("deeptrace.link.reason") == reason,
            "not {reason}: {span:#?}"
        );
    }
    Ok(())
}
