//! Traces as trees with bars. Spans wait here until their trace is quiet; pure.

use super::shown::{ShownSpan, hex, millis};
use crate::batch::Batch;
use crate::clock::Monotonic;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

/// Spans that wait; then the trace that has been quiet longest is printed early.
const MAX_SPANS: usize = 20_000;
/// Spans of one trace that wait; then the trace is printed in parts.
const MAX_TRACE_SPANS: usize = 2_000;
/// Columns of the bar.
const BAR_COLUMNS: usize = 24;
/// Columns of the tree; longer names push the rest to the right.
const MAX_TREE_COLUMNS: usize = 60;

/// Text, and the spans that are in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Printed {
    pub text: String,
    pub spans: usize,
}

struct Trace {
    spans: Vec<ShownSpan>,
    touched: Monotonic,
}

/// Traces that may still grow.
pub struct Waterfall {
    idle: Duration,
    traces: HashMap<Vec<u8>, Trace>,
    spans: usize,
}

impl Waterfall {
    /// Prints a trace when no span of it has come for `idle`.
    pub fn new(idle: Duration) -> Self {
        Self {
            idle,
            traces: HashMap::new(),
            spans: 0,
        }
    }

    /// Takes spans in; what must leave for want of room is printed.
    pub fn add(&mut self, batch: &Batch, now: Monotonic) -> Printed {
        let mut printed = Printed::default();
        for span in ShownSpan::all(&batch.resource_spans()) {
            let id = span.trace_id.clone();
            let trace = self.traces.entry(id.clone()).or_insert_with(|| Trace {
                spans: Vec::new(),
                touched: now,
            });
            trace.touched = now;
            trace.spans.push(span);
            self.spans += 1;
            if trace.spans.len() >= MAX_TRACE_SPANS {
                self.print(&id, &mut printed);
            } else if self.spans >= MAX_SPANS {
                let oldest = self
                    .traces
                    .iter()
                    .min_by_key(|(_, trace)| trace.touched)
                    .map(|(id, _)| id.clone());
                self.print(&oldest.unwrap_or_default(), &mut printed);
            }
        }
        printed
    }

    /// Prints the traces that have been quiet long enough.
    pub fn idle(&mut self, now: Monotonic) -> Printed {
        let idle = self.idle;
        self.print_where(|trace| now.since(trace.touched) >= idle)
    }

    /// Prints everything.
    pub fn all(&mut self) -> Printed {
        self.print_where(|_| true)
    }

    fn print_where(&mut self, wanted: impl Fn(&Trace) -> bool) -> Printed {
        let mut ids: Vec<_> = self
            .traces
            .iter()
            .filter(|(_, trace)| wanted(trace))
            .map(|(id, trace)| {
                let start = trace.spans.iter().map(|span| span.start_unix_ns).min();
                (start, id.clone())
            })
            .collect();
        ids.sort();
        let mut printed = Printed::default();
        for (_, id) in ids {
            self.print(&id, &mut printed);
        }
        printed
    }

    fn print(&mut self, id: &[u8], printed: &mut Printed) {
        let Some(trace) = self.traces.remove(id) else {
            return;
        };
        self.spans -= trace.spans.len();
        printed.spans += trace.spans.len();
        printed.text.push_str(&render(id, trace.spans));
    }
}

/// A line of the tree before its columns are laid out.
struct Row<'a> {
    tree: String,
    span: &'a ShownSpan,
    orphan: bool,
}

fn render(trace_id: &[u8], mut spans: Vec<ShownSpan>) -> String {
    spans.sort_by(|a, b| (a.start_unix_ns, &a.span_id).cmp(&(b.start_unix_ns, &b.span_id)));
    let start = spans
        .iter()
        .map(|span| span.start_unix_ns)
        .min()
        .unwrap_or(0);
    let end = spans
        .iter()
        .map(|span| span.end_unix_ns)
        .max()
        .unwrap_or(start);
    let services: HashSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    let errors = spans.iter().filter(|span| span.status == "error").count();
    let mut text = format!(
        "Trace {}: {}, {}, {}, {}\n",
        if trace_id.is_empty() {
            "without id".to_owned()
        } else {
            hex(trace_id)
        },
        plural(spans.len(), "span"),
        plural(services.len(), "service"),
        plural(errors, "error"),
        millis(Duration::from_nanos(end - start)),
    );
    let rows = rows(&spans);
    let width = rows
        .iter()
        .map(|row| row.tree.chars().count())
        .max()
        .unwrap_or(0)
        .min(MAX_TREE_COLUMNS);
    for row in rows {
        let span = row.span;
        let offset = Duration::from_nanos(span.start_unix_ns - start);
        let _ = write!(
            text,
            "  {:<width$}  {:<8} {:>12} {:>11}  |{}|  {}",
            row.tree,
            span.kind,
            format!("+{}", millis(offset)),
            millis(span.duration()),
            bar(span, start, end),
            span.status,
        );
        if !span.reason.is_empty() {
            let _ = write!(text, " ({})", span.reason);
        }
        if !span.link.is_empty() {
            let _ = write!(text, "  link: {}", span.link);
        }
        if row.orphan {
            let _ = write!(text, "  parent {} not seen", hex(&span.parent_span_id));
        }
        text.push('\n');
    }
    text
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Depth first from the roots. A span whose parent is not here is a root too, and so is
/// the earliest of a circle; no span is left out or shown twice.
fn rows(spans: &[ShownSpan]) -> Vec<Row<'_>> {
    let ids: HashSet<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    let mut children: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    let mut roots = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        let parent = span.parent_span_id.as_slice();
        if parent.is_empty() || !ids.contains(parent) || parent == span.span_id {
            roots.push(index);
        } else {
            children.entry(parent).or_default().push(index);
        }
    }
    let mut rows = Vec::new();
    let mut shown = HashSet::new();
    // Circles hang on no root: whatever is not shown from the roots begins a tree of its own.
    for root in roots.into_iter().chain(0..spans.len()) {
        let mut stack = vec![(root, String::new(), "", "")];
        while let Some((index, indent, branch, below)) = stack.pop() {
            let Some(span) = spans.get(index) else {
                continue;
            };
            if !shown.insert(index) {
                continue;
            }
            let orphan =
                !span.parent_span_id.is_empty() && !ids.contains(span.parent_span_id.as_slice());
            rows.push(Row {
                tree: format!("{indent}{branch}{}  {}", span.service, span.name),
                span,
                orphan,
            });
            let indent = format!("{indent}{below}");
            // Taken out, so that spans with the same id do not each show the same children.
            let mut kids = children
                .remove(span.span_id.as_slice())
                .unwrap_or_default()
                .into_iter()
                .rev();
            if let Some(last) = kids.next() {
                stack.push((last, indent.clone(), "└─ ", "   "));
            }
            stack.extend(kids.map(|kid| (kid, indent.clone(), "├─ ", "│  ")));
        }
    }
    rows
}

fn bar(span: &ShownSpan, start: u64, end: u64) -> String {
    let whole = u128::from((end - start).max(1));
    // The beginning is rounded down and the end up, so that no span is without a bar.
    let columns = |at: u64| u128::from(at.saturating_sub(start)) * BAR_COLUMNS as u128;
    let column = |column: u128| usize::try_from(column).unwrap_or(0).min(BAR_COLUMNS);
    let from = column(columns(span.start_unix_ns) / whole).min(BAR_COLUMNS - 1);
    let to = column(columns(span.end_unix_ns).div_ceil(whole)).max(from + 1);
    format!(
        "{}{}{}",
        " ".repeat(from),
        "█".repeat(to - from),
        " ".repeat(BAR_COLUMNS - to)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

    const MS: u64 = 1_000_000;

    fn attribute(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        }
    }

    /// Trace, span and parent by number (0 = none), service, name, kind, start and end in ms.
    type Row = (u8, u8, u8, &'static str, &'static str, i32, u64, u64);

    fn batch(rows: &[Row]) -> Batch {
        let mut batch = Batch::default();
        for &(trace, id, parent, service, name, kind, start, end) in rows {
            let span = Span {
                trace_id: vec![trace; 16],
                span_id: vec![id; 8],
                parent_span_id: if parent == 0 {
                    Vec::new()
                } else {
                    vec![parent; 8]
                },
                name: name.to_owned(),
                kind,
                start_time_unix_nano: start * MS,
                end_time_unix_nano: end * MS,
                attributes: vec![
                    attribute(
                        "deeptrace.link.method",
                        any_value::Value::StringValue("thread".to_owned()),
                    ),
                    attribute(
                        "deeptrace.link.confidence",
                        any_value::Value::DoubleValue(0.987),
                    ),
                ],
                status: (id == 4).then(|| Status {
                    code: 2,
                    message: "boom\u{1b}[31m".to_owned(),
                }),
                ..Span::default()
            };
            let name = attribute(
                "service.name",
                any_value::Value::StringValue(service.to_owned()),
            );
            batch.resource_spans_mut().push(ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![name],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    spans: vec![span],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            });
        }
        batch
    }

    fn text(rows: &[Row]) -> String {
        let mut waterfall = Waterfall::new(Duration::ZERO);
        let early = waterfall.add(&batch(rows), Monotonic::default());
        assert_eq!(early, Printed::default());
        let printed = waterfall.all();
        assert_eq!(printed.spans, rows.len());
        printed.text
    }

    #[test]
    fn a_trace_is_a_tree_with_bars() {
        let text = text(&[
            (1, 4, 3, "cart", "GET", 2, 4, 8),
            (1, 1, 0, "web", "GET /", 2, 0, 12),
            (1, 5, 1, "web", "SET", 3, 9, 10),
            (1, 3, 1, "web", "GET", 3, 3, 9),
        ]);
        let expected = "\
Trace 01010101010101010101010101010101: 4 spans, 2 services, 1 error, 12.00ms
  web  GET /       server        +0.00ms     12.00ms  |████████████████████████|  unset  link: thread 0.99
  ├─ web  GET      client        +3.00ms      6.00ms  |      ████████████      |  unset  link: thread 0.99
  │  └─ cart  GET  server        +4.00ms      4.00ms  |        ████████        |  error (boom·[31m)  link: thread 0.99
  └─ web  SET      client        +9.00ms      1.00ms  |                  ██    |  unset  link: thread 0.99
";
        assert_eq!(text, expected);
    }

    #[test]
    fn orphans_circles_and_doubles_are_all_shown_once() {
        let text = text(&[
            (1, 1, 9, "a", "orphan", 2, 0, 1),
            (1, 2, 3, "a", "circle", 2, 1, 2),
            (1, 3, 2, "a", "circle", 2, 2, 3),
            (1, 6, 6, "a", "own parent", 2, 3, 4),
            (1, 7, 0, "a", "double", 2, 4, 5),
            (1, 7, 0, "a", "double", 2, 4, 5),
            (1, 8, 7, "a", "child of doubles", 2, 5, 5),
        ]);
        assert_eq!(text.lines().count(), 8, "{text}");
        assert!(text.contains("parent 0909090909090909 not seen"), "{text}");
        assert_eq!(text.matches("child of doubles").count(), 1, "{text}");
    }

    #[test]
    fn a_trace_waits_for_its_last_span() {
        let mut waterfall = Waterfall::new(Duration::from_secs(1));
        let at = Monotonic::from_millis;
        waterfall.add(
            &batch(&[(1, 1, 0, "a", "x", 2, 0, 1), (2, 1, 0, "a", "x", 2, 0, 1)]),
            at(0),
        );
        waterfall.add(&batch(&[(2, 2, 1, "a", "x", 2, 0, 1)]), at(600));
        assert_eq!(waterfall.idle(at(999)).spans, 0);
        assert_eq!(waterfall.idle(at(1_000)).spans, 1);
        assert_eq!(waterfall.idle(at(1_600)).spans, 2);
        assert_eq!(waterfall.all(), Printed::default());
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_left_out() {
        let mut waterfall = Waterfall::new(Duration::from_secs(1));
        let mut printed = 0;
        for round in 0..MAX_SPANS as u64 + 10 {
            let mut one = batch(&[(1, 1, 0, "a", "x", 2, 0, 1)]);
            if let Some(span) = one
                .resource_spans_mut()
                .first_mut()
                .and_then(|spans| spans.scope_spans.first_mut())
            {
                // Half of them in one trace, the others in one each.
                let trace = if round % 2 == 0 { 0 } else { round };
                span.spans[0].trace_id = u128::from(trace).to_be_bytes().to_vec();
            }
            printed += waterfall.add(&one, Monotonic::from_millis(round)).spans;
            assert!(waterfall.spans < MAX_SPANS);
        }
        assert_eq!(printed + waterfall.all().spans, MAX_SPANS + 10);
    }
}
