//! From the kernel's record to an [`Event`].

use ebpf_common::{
    Call, ConnectionId, Flags, Goroutine, ProcessEvent, ProcessRecord, RecordKind, Role,
    SocketRecord,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which way a message went, seen from the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Into the process.
    Read,
    /// Out of the process.
    Write,
}

/// The transport below the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A byte stream with sequence numbers.
    Tcp,
    /// Datagrams.
    Udp,
    /// A byte stream between two processes of one host.
    Unix,
}

/// One thing that the kernel saw.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A message, or a connection that came or went.
    Socket(SocketEvent<'a>),
    /// A process came, changed, went or listens.
    Process {
        /// What happened.
        event: ProcessEvent,
        /// To whom.
        tgid: u32,
        /// The child's process id, or a port.
        other: u32,
    },
}

/// A message, or a connection that came or went.
#[derive(Clone, Debug)]
pub struct SocketEvent<'a> {
    /// What made the event.
    pub call: Call,
    /// Which way the bytes went.
    pub direction: Direction,
    /// Bits of [`Flags`].
    pub flags: u16,
    /// When the call returned, `CLOCK_MONOTONIC` ns.
    pub exit_ns: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Thread name, padded with zeros.
    pub comm: [u8; 16],
    /// Transport.
    pub protocol: Protocol,
    /// Which end this is.
    pub role: Role,
    /// Address of the kernel's socket: tells sockets apart while they live.
    pub sock: u64,
    /// Initial sequence number of this end (TCP), or inode (unix).
    pub local_isn: u32,
    /// Initial sequence number of the other end (TCP), or inode (unix).
    pub remote_isn: u32,
    /// Address of this end; v4-mapped addresses are IPv4 here. None for unix sockets.
    pub local: Option<SocketAddr>,
    /// Address of the other end.
    pub remote: Option<SocketAddr>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Descriptor; -1 for events without one.
    pub fd: i32,
    /// Offset of the first byte in its direction.
    pub offset: u64,
    /// Where the other direction stood when the call returned.
    pub other_offset: u64,
    /// Bytes that the call moved.
    pub total_len: u32,
    /// What the call returned (connect, accept).
    pub result: i32,
    /// Who ended the thread's last wait for another thread, if it was one and is sure.
    pub woken: Option<Woken>,
    /// How often the thread had waited for descriptors before, modulo 2^32; 0 = never.
    pub polls: u32,
    /// The goroutine that made the call, if it is known.
    pub goroutine: Option<Goroutine>,
    /// The first bytes of the message; shorter than `total_len` when marked so.
    pub payload: &'a [u8],
}

/// One thread ended another's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// The thread that did.
    pub waker_tid: u32,
    /// When, `CLOCK_MONOTONIC` ns.
    pub time_ns: u64,
    /// It was the first that the thread woke since its own last message.
    pub first: bool,
}

impl SocketEvent<'_> {
    /// True if any of these bits of [`Flags`] is set.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// False for what left before the peer's first packet came, with the SYN: the number of the
    /// peer, and what is named after it, is not true then.
    pub fn knows_peer(&self) -> bool {
        self.protocol != Protocol::Tcp || self.connection_id().receive_base != 0
    }

    /// Key of this connection in the map of capture modes.
    pub fn connection_id(&self) -> ConnectionId {
        let syn = u32::from(self.role == Role::Acceptor);
        ConnectionId {
            sock: self.sock,
            send_base: self.local_isn.wrapping_add(syn),
            // The other end of a unix socket has an inode only while it is open and accepted.
            receive_base: match self.protocol {
                Protocol::Unix => 0,
                Protocol::Tcp | Protocol::Udp => self.remote_isn.wrapping_add(1),
            },
        }
    }
}

/// A record that is not one of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Undecodable {
    /// Fewer bytes than its header says.
    #[error("record of {0} bytes is cut short")]
    CutShort(usize),
    /// A number that stands for nothing.
    #[error("record has an unknown {0}")]
    Unknown(&'static str),
}

/// Takes a record apart; the payload is borrowed from it.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, Undecodable> {
    match bytes.first() {
        Some(&kind) if kind == RecordKind::Socket as u8 => decode_socket(bytes).map(Event::Socket),
        Some(&kind) if kind == RecordKind::Process as u8 => decode_process(bytes),
        Some(_) => Err(Undecodable::Unknown("kind")),
        None => Err(Undecodable::CutShort(0)),
    }
}

fn decode_socket(bytes: &[u8]) -> Result<SocketEvent<'_>, Undecodable> {
    let cut = || Undecodable::CutShort(bytes.len());
    let record = SocketRecord::from_bytes(bytes).ok_or_else(cut)?;
    let end = size_of::<SocketRecord>() + record.captured_len as usize;
    let payload = bytes.get(size_of::<SocketRecord>()..end).ok_or_else(cut)?;
    let (local, remote) = addresses(&record);
    Ok(SocketEvent {
        call: Call::from_number(record.call).ok_or(Undecodable::Unknown("call"))?,
        direction: if record.flags & Flags::WRITE != 0 {
            Direction::Write
        } else {
            Direction::Read
        },
        flags: record.flags,
        exit_ns: record.exit_ns,
        tgid: record.tgid,
        tid: record.tid,
        comm: record.comm,
        protocol: match record.protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            0 => Protocol::Unix,
            _ => return Err(Undecodable::Unknown("protocol")),
        },
        role: match record.role {
            1 => Role::Connector,
            2 => Role::Acceptor,
            _ => Role::Unknown,
        },
        sock: record.sock,
        local_isn: record.local_isn,
        remote_isn: record.remote_isn,
        local,
        remote,
        netns: record.netns,
        fd: record.fd,
        offset: record.offset,
        other_offset: record.other_offset,
        total_len: record.total_len,
        result: record.result,
        woken: (record.waker_tid != 0).then_some(Woken {
            waker_tid: record.waker_tid,
            time_ns: record.woken_ns,
            first: record.flags & Flags::WOKEN_LATER == 0,
        }),
        polls: record.polls,
        goroutine: (record.goroutine != Goroutine::NONE).then_some(record.goroutine),
        payload,
    })
}

fn decode_process(bytes: &[u8]) -> Result<Event<'_>, Undecodable> {
    let record = ProcessRecord::from_bytes(bytes).ok_or(Undecodable::CutShort(bytes.len()))?;
    Ok(Event::Process {
        event: ProcessEvent::from_number(record.event).ok_or(Undecodable::Unknown("event"))?,
        tgid: record.tgid,
        other: record.other,
    })
}

fn addresses(record: &SocketRecord) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let ip = |words: [u32; 4]| -> Option<IpAddr> {
        // Network order in memory: read as a number, the words are turned round.
        let [a, b, c, d] = words.map(u32::from_be);
        let bits = [a, b, c, d]
            .into_iter()
            .fold(0, |bits, word| bits << 32 | u128::from(word));
        match record.family {
            2 => Some(Ipv4Addr::from(a).into()),
            10 => Some(Ipv6Addr::from(bits).to_canonical()),
            _ => None,
        }
    };
    let local = ip(record.local_addr).map(|ip| SocketAddr::new(ip, record.local_port));
    let remote = ip(record.remote_addr).map(|ip| SocketAddr::new(ip, record.remote_port));
    (local, remote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(decode(&[]).err(), Some(Undecodable::CutShort(0)));
        assert_eq!(decode(&[9; 200]).err(), Some(Undecodable::Unknown("kind")));
        assert_eq!(decode(&[1; 20]).err(), Some(Undecodable::CutShort(20)));
        let mut longer_than_the_record = [0; size_of::<SocketRecord>()];
        longer_than_the_record[0] = 1;
        longer_than_the_record[84] = 1;
        assert_eq!(
            decode(&longer_than_the_record).err(),
            Some(Undecodable::CutShort(longer_than_the_record.len()))
        );
    }
}
