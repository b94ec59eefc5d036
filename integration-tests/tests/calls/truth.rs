//! What must have been captured, from what the workload says that it did.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use collector::capture::{Call, Direction, Flags, Protocol, Role, SocketEvent};
use integration_tests::workload::{Made, fnv1a};

use crate::watch::own_netns;

const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;
const MSG_TRUNC: i32 = 0x20;
/// The capture's own limits: what is beyond must be marked.
const MAX_PAYLOAD: u64 = 64 * 1024;
const MAX_MESSAGES: u32 = 16;
const MAX_IOVECS: u64 = 32;

/// `CALL FAMILY PROTO CASE`, taken apart.
pub struct Row<'a> {
    pub family: &'a str,
    pub stream: bool,
    pub case: &'a str,
}

impl<'a> Row<'a> {
    pub fn parse(combination: &'a str) -> Result<Self> {
        let mut words = combination.split(' ').skip(1);
        let mut word = || words.next().context("a combination has four words");
        Ok(Self {
            family: word()?,
            stream: word()? == "tcp",
            case: word()?,
        })
    }

    pub fn unix(&self) -> bool {
        self.family == "unix"
    }

    /// Unix datagrams are not captured.
    pub fn captured(&self) -> bool {
        self.stream || !self.unix()
    }

    pub fn protocol(&self) -> Protocol {
        match (self.unix(), self.stream) {
            (true, _) => Protocol::Unix,
            (false, true) => Protocol::Tcp,
            (false, false) => Protocol::Udp,
        }
    }

    /// The role of the workload's end.
    pub fn role(&self) -> Role {
        match self.protocol() {
            Protocol::Tcp if self.case == "accepted" => Role::Acceptor,
            Protocol::Tcp => Role::Connector,
            _ => Role::Unknown,
        }
    }

    /// How the workload's connection is made while the tracer looks.
    pub fn opening(&self) -> Option<Call> {
        match self.case {
            "accepted" => Some(Call::Accept),
            "old" | "unconnected" => None,
            _ => Some(Call::Connect),
        }
    }
}

/// A captured message as it must be.
#[derive(Debug)]
pub struct Expected {
    pub call: Call,
    direction: Direction,
    ids: (u32, u32, &'static str),
    fd: i32,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    netns: u32,
    unix_inode: Option<u32>,
    role: Role,
    flags: u16,
    total_len: u64,
    captured_len: u64,
    /// Offset and the other direction's.
    offsets: (u64, u64),
    first_bytes: String,
    hash: Option<String>,
}

/// What a row must give.
#[derive(Default)]
pub struct Truth {
    pub events: Vec<Expected>,
    pub peeked: u64,
    pub losses: BTreeMap<&'static str, u64>,
    /// Where the streams stand in the end: read, written.
    pub ends: [u64; 2],
}

/// What must be seen of what was made.
pub fn truth(row: &Row<'_>, made: &[Made]) -> Result<Truth> {
    let mut truth = Truth::default();
    let mut positions = HashMap::from([("read", 0), ("write", 0)]);
    let mut base = HashMap::from([("read", 0), ("write", 0)]);
    for one in made {
        let peeked = one.flags & MSG_PEEK != 0;
        let offset = positions.get_mut(&*one.dir).context("reads or writes")?;
        let start = *offset;
        if !peeked {
            *offset += u64::try_from(one.ret).unwrap_or(0);
        }
        if !one.seen && row.unix() {
            // The kernel counts no bytes of unix sockets: they start when the tracer does.
            base.clone_from(&positions);
        }
        let beside = peeked || one.flags & MSG_OOB != 0;
        truth.peeked += u64::from(beside && one.dir == "read" && one.ret >= 0);
        if one.entry == MAX_MESSAGES && row.captured() {
            *truth.losses.entry("too_many_messages").or_default() += 1;
        }
        if peeked || !one.seen || !moved_something(row, one) || one.entry >= MAX_MESSAGES {
            continue;
        }
        let other = if one.dir == "read" { "write" } else { "read" };
        let offsets = (start - base[&*one.dir], positions[other] - base[other]);
        truth.events.push(expected(row, one, offsets)?);
    }
    truth.ends = [positions["read"], positions["write"]];
    Ok(truth)
}

/// Whether a record is due at all.
fn moved_something(row: &Row<'_>, one: &Made) -> bool {
    if !row.captured() || one.ret < 0 || one.flags & MSG_OOB != 0 {
        return false;
    }
    // An empty buffer moves nothing and is no end of the stream.
    one.ret > 0 || !row.stream || (one.dir == "read" && one.asked > 0)
}

fn expected(row: &Row<'_>, one: &Made, offsets: (u64, u64)) -> Result<Expected> {
    let call = Call::ALL
        .into_iter()
        .find(|call| format!("{call:?}").to_lowercase() == one.call)
        .with_context(|| format!("no call is {}", one.call))?;
    let reads = one.dir == "read";
    let (ret, in_buffers) = (one.ret.unsigned_abs(), one.payload_len);
    let unseen = matches!(call, Call::Sendfile | Call::Splice)
        || (reads && row.protocol() == Protocol::Tcp && one.flags & MSG_TRUNC != 0);
    let cut = reads
        && row.protocol() == Protocol::Udp
        && (ret > one.asked || one.msg_flags & MSG_TRUNC != 0);
    let many = row.case == "iovecs_many" && one.asked > 200;
    let captured = match () {
        () if unseen => 0,
        // The parts have 10, 11, 12, 10, ... bytes.
        () if many => (0..MAX_IOVECS).map(|part| 10 + part % 3).sum(),
        () => in_buffers.min(MAX_PAYLOAD),
    };
    let mark = |is: bool, flag: u16| if is { flag } else { 0 };
    let fault = !unseen && !cut && in_buffers < ret;
    let flags = mark(!reads, Flags::WRITE)
        | mark(unseen, Flags::UNSEEN)
        | mark(cut, Flags::DATAGRAM_CUT)
        | mark(fault && in_buffers <= MAX_PAYLOAD, Flags::FAULT)
        | mark(row.stream && reads && ret == 0, Flags::END)
        | mark(
            captured < ret && !unseen && (!fault || in_buffers > MAX_PAYLOAD),
            Flags::TRUNCATED,
        );
    let inet = |ip: &str, port: u16| -> Result<Option<SocketAddr>> {
        if row.unix() {
            return Ok(None);
        }
        let ip: IpAddr = ip.parse().with_context(|| format!("reading {ip:?}"))?;
        Ok(Some(SocketAddr::new(ip.to_canonical(), port)))
    };
    let whole = captured == in_buffers && !unseen;
    Ok(Expected {
        call,
        direction: if reads {
            Direction::Read
        } else {
            Direction::Write
        },
        ids: (one.pid, one.tid, comm(row, one)),
        fd: one.fd,
        local: inet(&one.local, one.local_port)?,
        remote: inet(&one.peer, one.peer_port)?,
        netns: if row.unix() { 0 } else { own_netns()? },
        unix_inode: row.unix().then_some(u32::try_from(one.inode)?),
        role: row.role(),
        flags,
        total_len: ret,
        captured_len: captured,
        offsets: if row.stream { offsets } else { (0, 0) },
        first_bytes: if unseen {
            String::new()
        } else {
            one.payload.clone()
        },
        hash: whole.then(|| one.hash.clone()),
    })
}

/// The workload names the threads that it starts.
fn comm(row: &Row<'_>, one: &Made) -> &'static str {
    if row.case == "threads" && one.pid != one.tid {
        "calls-thread"
    } else {
        "calls"
    }
}

/// Everything in which an event is not what it must be.
pub fn differences(expected: &Expected, event: &SocketEvent<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, want: String, got: String| {
        if want != got {
            wrong.push(format!("{what} is {got}, not {want}"));
        }
    };
    macro_rules! same {
        ($what:literal, $want:expr, $got:expr) => {
            same($what, format!("{:?}", $want), format!("{:?}", $got))
        };
    }
    let comm = String::from_utf8_lossy(&event.comm);
    let mut first_bytes = String::new();
    for byte in event.payload.iter().take(64) {
        // Writing to a string does not fail.
        let _ = write!(first_bytes, "{byte:02x}");
    }
    same!("call", expected.call, event.call);
    same!("direction", expected.direction, event.direction);
    let ids = (event.tgid, event.tid, comm.trim_end_matches('\0'));
    same!("task", expected.ids, ids);
    same!("fd", expected.fd, event.fd);
    same!("local address", expected.local, event.local);
    same!("remote address", expected.remote, event.remote);
    same!("network namespace", expected.netns, event.netns);
    same!("role", expected.role, event.role);
    same!("total length", expected.total_len, event.total_len);
    same!(
        "captured length",
        expected.captured_len,
        event.payload.len()
    );
    same!("first bytes", expected.first_bytes, first_bytes);
    same("flags", flags(expected.flags), flags(event.flags));
    if let Some(inode) = expected.unix_inode {
        same!("inode", inode, event.local_isn);
    }
    let offsets = (event.offset, event.other_offset);
    same!("offsets", expected.offsets, offsets);
    if let Some(hash) = &expected.hash {
        same("hash of the payload", hash.clone(), fnv1a(event.payload));
    }
    wrong
}

/// Flags by name.
pub fn flags(bits: u16) -> String {
    let names = [
        (Flags::WRITE, "WRITE"),
        (Flags::TRUNCATED, "TRUNCATED"),
        (Flags::FAULT, "FAULT"),
        (Flags::SKIPPED, "SKIPPED"),
        (Flags::UNSEEN, "UNSEEN"),
        (Flags::END, "END"),
        (Flags::DATAGRAM_CUT, "DATAGRAM_CUT"),
        (Flags::UNSTABLE, "UNSTABLE"),
    ];
    let set = names.into_iter().filter(|(bit, _)| bits & bit != 0);
    let set: Vec<_> = set.map(|(_, name)| name).collect();
    format!("[{}]", set.join(" "))
}
