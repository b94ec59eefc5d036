//! HTTP/1.0 and HTTP/1.1 (RFC 9112): heads are read, bodies are stepped over.
//!
//! Leaves to others: HTTP/2 (its preface is refused), and what an upgraded or
//! tunnelled connection speaks after `Stop`.

mod attributes;
mod head;
mod hunt;
mod parser;
mod url;

#[cfg(test)]
mod tests;

use super::cursor::Reading;
use super::{Detection, Flow, Pairing, Parser, Protocol};
use memchr::memchr;

/// The registry's entry.
#[derive(Debug)]
pub struct Http1;

impl Protocol for Http1 {
    fn name(&self) -> &'static str {
        "http1"
    }

    fn pairing(&self) -> Pairing {
        Pairing::InOrder
    }

    fn detect(&self, start: &[u8]) -> Detection {
        let start = start.get(head::blank_lines(start)..).unwrap_or_default();
        let (line, whole) = match memchr(b'\n', start) {
            Some(end) => (
                head::without_line_end(start.get(..end).unwrap_or(start)),
                true,
            ),
            None => (start, false),
        };
        match (
            head::status_line(line, whole),
            head::request_line(line, whole),
        ) {
            (Reading::Done(_), _) => Detection::Yes(Flow::Response),
            (_, Reading::Done(_)) => Detection::Yes(Flow::Request),
            (Reading::Bad, Reading::Bad) => Detection::No,
            _ if start.len() >= head::MAX_HEAD => Detection::No,
            _ => Detection::NeedMore,
        }
    }

    fn parser(&self) -> Box<dyn Parser> {
        Box::<parser::Http1Parser>::default()
    }
}
