//! What the room saw and what it could not use, by reason.

use crate::streams::Ignored;
use std::collections::HashMap;

/// Why a request or a response has no partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unpaired {
    /// The connection closed before the response: the span is an error.
    Closed,
    /// Bytes of the response are missing: the span says so.
    ResponseLost,
    /// A response whose request was not seen.
    NoRequest,
    /// After missing bytes it is not sure which request a response answers.
    Doubtful,
    /// More requests were open than are kept.
    TooMany,
    /// The collector ended before the response.
    Shutdown,
}

impl Unpaired {
    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ResponseLost => "response_lost",
            Self::NoRequest => "no_request",
            Self::Doubtful => "doubtful",
            Self::TooMany => "too_many",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Messages of system calls.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Spans by protocol.
    pub spans: HashMap<&'static str, u64>,
    /// Requests and responses without a partner, by protocol and reason.
    pub unpaired: HashMap<(&'static str, Unpaired), u64>,
    /// Connections from which nothing is read, by reason and port of the accepting side.
    pub ignored: HashMap<(Ignored, u16), u64>,
    /// Bytes given up by parsers: mid-stream, malformed, too long.
    pub lost_bytes: [u64; 3],
    /// Gaps that cost messages.
    pub gaps: u64,
    /// Pieces that were seen before.
    pub overlaps: u64,
    /// Datagrams: no protocol reads them yet, by port.
    pub datagrams: HashMap<u16, u64>,
    /// Spans of a process that was gone before it could be looked at.
    pub no_process: u64,
    /// Connections forgotten because there were too many.
    pub evicted: u64,
    /// Messages of system calls whose stream position was not to be trusted.
    pub unstable: u64,
}

/// Ports told apart; further ones count as port 0.
const MAX_PORTS: usize = 256;

impl Counts {
    /// Adds one unpaired message.
    pub fn unpaired(&mut self, protocol: &'static str, reason: Unpaired, count: u64) {
        if count > 0 {
            *self.unpaired.entry((protocol, reason)).or_default() += count;
        }
    }

    /// Adds one ignored connection.
    pub fn ignored(&mut self, reason: Ignored, port: u16) {
        let known = self.ignored.len() < MAX_PORTS || self.ignored.contains_key(&(reason, port));
        *self
            .ignored
            .entry((reason, if known { port } else { 0 }))
            .or_default() += 1;
    }

    /// Adds one datagram.
    pub fn datagram(&mut self, port: u16) {
        let known = self.datagrams.len() < MAX_PORTS || self.datagrams.contains_key(&port);
        *self
            .datagrams
            .entry(if known { port } else { 0 })
            .or_default() += 1;
    }
}
