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
        for span in ShownSpan::all(batch) {
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
    let column = |at: u64| {
        let column = u128::from(at.saturating_sub(start)) * BAR_COLUMNS as u128 / whole;
        usize::try_from(column).unwrap_or(0).min(BAR_COLUMNS)
    };
    let from = column(span.start_unix_ns).min(BAR_COLUMNS - 1);
    let to = column(span.end_unix_ns).max(from + 1);
    format!(
        "{}{}{}",
        " ".repeat(from),
        "█".repeat(to - from),
        " ".repeat(BAR_COLUMNS - to)
    )
}
