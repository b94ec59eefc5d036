//! What a remembered span costs. Alone in its file, because it reads the size of the process.

use span_linker::window::Window;
use span_linker::window::entry::{Entry, Moment, Side};
use span_model::{LinkFacts, ProcessKey, SpanId};
use std::fs;

/// Resident memory of this process in bytes, where the system tells.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[test]
fn a_remembered_span_costs_less_than_400_bytes() {
    let Some(before) = resident() else { return };
    let mut window = Window::default();
    let count: u64 = 400_000;
    for n in 1..=count {
        let span = SpanId::from_hash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let side = if n % 2 == 0 {
            Side::Ingress
        } else {
            Side::Egress
        };
        let caller = (n % 2 == 0).then_some(SpanId::from_hash(n));
        let tokens = if n % 4 < 2 { vec![n] } else { Vec::new() };
        let facts = LinkFacts {
            caller,
            tokens,
            request_tid: 7,
            response_tid: 7,
            ..LinkFacts::default()
        };
        let mut entry = Entry::new(span, side, ProcessKey(n % 16), n * 1000, facts);
        entry.ended(n * 1000 + 900);
        window.hold(entry, Moment(n));
        window.exported(window.place(span).unwrap(), Moment(n));
    }
    assert_eq!(window.len(), 400_000);
    let cost = (resident().unwrap_or(before) - before) / window.len();
    println!("{cost} bytes a span, entry {}", size_of::<Entry>());
    assert!(cost < 400, "{cost}");
}
