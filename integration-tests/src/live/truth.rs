//! Which request of the load each span really belongs to.
//!
//! Whoever accepts a connection knows the numbers that came over it, and in which order: the load
//! for the server under test, the leaf by its log, Redis by what MONITOR shows. The SERVER spans
//! of a connection (by its two ports), in the order of their starts, are these requests one to
//! one; those that one call read start together, and were sent in the order of their callers'
//! starts. Where their count differs something was lost, and no span of the connection is taken.
//!
//! A CLIENT span is the request that its callee's SERVER span is. That it is its caller is computed
//! from the TCP stream alone; no rung of the linker has a say in it.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::exported::Span;

/// A request that came over a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    /// Where it was accepted.
    pub(super) port: u16,
    /// The other end's port.
    pub(super) peer_port: u16,
    /// Which request of the load it is, or was made for.
    pub(super) number: u64,
}

/// What came over each connection, in order.
#[derive(Debug, Default)]
pub(super) struct Truth {
    by_connection: HashMap<(u16, u16), Vec<u64>>,
}

impl Truth {
    pub(super) fn add(&mut self, came: Came) {
        let connection = (came.port, came.peer_port);
        self.by_connection
            .entry(connection)
            .or_default()
            .push(came.number);
    }

    /// All that came, by port and number.
    pub(super) fn all(&self) -> impl Iterator<Item = (u16, u64)> {
        let connections = self.by_connection.iter();
        connections.flat_map(|((port, _), numbers)| numbers.iter().map(|number| (*port, *number)))
    }

    /// SERVER spans with their numbers.
    pub(super) fn assign<'a>(&self, spans: &'a [Span]) -> Vec<(&'a Span, u16, u64)> {
        let starts: HashMap<&str, u64> = spans
            .iter()
            .map(|span| (&*span.span_id, span.start_ns))
            .collect();
        let order = |span: &&Span| (span.start_ns, starts.get(&*span.parent_span_id).copied());
        let mut seen: HashMap<(u16, u16), Vec<&Span>> = HashMap::new();
        for span in spans.iter().filter(|span| span.kind == "server") {
            let port = |key| span.number(key).and_then(|port| u16::try_from(port).ok());
            let ports = port("server.port").zip(port("network.peer.port"));
            if let Some(connection) = ports {
                seen.entry(connection).or_default().push(span);
            }
        }
        let mut assigned = Vec::new();
        for (connection, mut spans) in seen {
            let Some(numbers) = self.by_connection.get(&connection) else {
                continue;
            };
            if spans.len() == numbers.len() {
                spans.sort_by_key(order);
                let pairs = spans.into_iter().zip(numbers);
                assigned.extend(pairs.map(|(span, number)| (span, connection.0, *number)));
            }
        }
        assigned
    }
}

/// The leaf's log, from where it was read last.
#[derive(Debug)]
pub(super) struct LeafLog {
    pub(super) path: PathBuf,
    pub(super) read: usize,
}

impl LeafLog {
    /// What the leaf has answered since the last call.
    pub(super) fn read(&mut self) -> Result<Vec<Came>> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let news = text.get(self.read..).unwrap_or_default();
        self.read = text.len();
        news.lines()
            .map(|line| came(line.split(' ')).with_context(|| format!("the leaf's line {line:?}")))
            .collect()
    }
}

fn came<'a>(words: impl Iterator<Item = &'a str>) -> Option<Came> {
    let mut numbers = words.map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Some(Came {
        port: u16::try_from(next()?).ok()?,
        peer_port: u16::try_from(next()?).ok()?,
        number: next()?,
    })
}

/// What Redis is asked, as MONITOR shows it.
#[derive(Debug)]
pub(super) struct Monitor {
    came: Arc<Mutex<Vec<Came>>>,
}

impl Monitor {
    /// Listens until Redis ends.
    pub(super) fn start(port: u16) -> Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(b"MONITOR\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().context("Redis hangs up")??;
        ensure!(first == "+OK", "Redis says {first:?} to MONITOR");
        let came = Arc::<Mutex<Vec<_>>>::default();
        let all = Arc::clone(&came);
        thread::spawn(move || {
            let asked = lines
                .map_while(Result::ok)
                .filter_map(|line| asked(port, &line));
            for one in asked {
                all.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            }
        });
        Ok(Self { came })
    }

    /// What it was asked since the last call.
    pub(super) fn read(&self) -> Vec<Came> {
        std::mem::take(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `+1700000000.123456 [0 127.0.0.1:40000] "GET" "key:17"`
fn asked(port: u16, line: &str) -> Option<Came> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let (peer, rest) = rest.split_once(']')?;
    let (_, number) = rest.split_once("\"key:")?;
    Some(Came {
        port,
        peer_port: peer.parse().ok()?,
        number: number.trim_end_matches('"').parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_monitor_shows_is_read() {
        let line = "+1700000000.123456 [0 127.0.0.1:40000] \"GET\" \"key:17\"";
        let came = asked(6379, line).map(|came| (came.port, came.peer_port, came.number));
        assert_eq!(came, Some((6379, 40000, 17)));
        assert!(asked(6379, "+OK").is_none());
    }
}
