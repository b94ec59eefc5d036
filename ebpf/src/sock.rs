//! Reads from `struct sock`: addresses, and where its streams stand.

use crate::maps::{BASES, CONNECTIONS, UNIX_POSITIONS, count, offsets, settings};
use crate::task::{Part, read};
use ebpf_common::{Capture, ConnectionId, Counter, Extent, Family, Flags, Role, SocketRecord};

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const SOCK_STREAM: u16 = 1;
/// TCP states in which this side has not sent its FIN.
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_SYN_SENT: u8 = 2;
/// Also of who accepts, while a request that came with the SYN is read and answered.
const TCP_SYN_RECV: u8 = 3;
/// TCP states in which it has: it takes a number behind the last byte.
const FIN_SENT: u32 = 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11;
/// `SOCK_DONE` in `sk_flags`: the peer's FIN was taken into the stream.
const SOCK_DONE: u64 = 1 << 1;
/// Reads of a connection's counters until two agree.
const STABLE_READS: u32 = 4;

/// What the socket can do and where its messages go.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Transport {
    Tcp = 1,
    Udp = 2,
    Unix = 3,
}

/// Copies of the parts of a socket that are looked at: one copy costs less than a field each.
#[repr(C)]
pub struct SockCopy {
    common: Part<{ Extent::MAX_SOCK_COMMON }>,
    tcp: Part<{ Extent::MAX_TCP }>,
}

impl SockCopy {
    #[inline(always)]
    fn common<T: Copy>(&self, offset: u32) -> T {
        self.common.field(offset, &offsets().sock_common)
    }

    #[inline(always)]
    fn tcp<T: Copy>(&self, offset: u32) -> T {
        self.tcp.field(offset, &offsets().tcp)
    }

    /// The TCP state when `fill_identity` looked.
    #[inline(always)]
    pub fn state(&self) -> u8 {
        self.common(offsets().sock_state)
    }
}

/// Fills family, protocol, addresses, ports and network namespace.
#[inline(always)]
pub fn fill_identity(
    sock: u64,
    copy: &mut SockCopy,
    record: &mut SocketRecord,
) -> Result<Transport, Counter> {
    let o = offsets();
    copy.common.fill(sock, &o.sock_common)?;
    let family: u16 = copy.common(o.sock_family);
    let kind: u16 = read(sock, o.sock_type)?;
    record.sock = sock;
    record.family = family as u8;
    if family == Family::Unix as u16 {
        return fill_unix(sock, kind, record);
    }
    if family != Family::Inet as u16 && family != Family::Inet6 as u16 {
        return Err(Counter::OtherSocket);
    }
    let protocol: u16 = read(sock, o.sock_protocol)?;
    let transport = match protocol {
        IPPROTO_TCP if kind == SOCK_STREAM => Transport::Tcp,
        IPPROTO_UDP => Transport::Udp,
        _ => return Err(Counter::OtherSocket),
    };
    record.protocol = protocol as u8;
    record.remote_port = u16::from_be(copy.common(o.sock_dport));
    record.local_port = local_port(sock)?;
    if family == Family::Inet as u16 {
        record.local_addr = [copy.common(o.sock_rcv_saddr), 0, 0, 0];
        record.remote_addr = [copy.common(o.sock_daddr), 0, 0, 0];
    } else {
        record.local_addr = copy.common(o.sock_v6_rcv_saddr);
        record.remote_addr = copy.common(o.sock_v6_daddr);
    }
    let net: u64 = copy.common(o.sock_net);
    record.netns = read(net, o.net_inum)?;
    Ok(transport)
}

/// The port that packets bear. `skc_num` says the same, but is cleared when the
/// connection ends, before anybody is told.
#[inline(always)]
pub fn local_port(sock: u64) -> Result<u16, Counter> {
    read(sock, offsets().inet_sport).map(u16::from_be)
}

#[inline(always)]
fn fill_unix(sock: u64, kind: u16, record: &mut SocketRecord) -> Result<Transport, Counter> {
    if settings().unix_sockets == 0 || kind != SOCK_STREAM {
        return Err(Counter::OtherSocket);
    }
    let o = offsets();
    record.protocol = 0;
    record.local_addr = [0; 4];
    record.remote_addr = [0; 4];
    record.local_port = 0;
    record.remote_port = 0;
    record.netns = 0;
    record.role = Role::Unknown as u8;
    record.local_isn = unix_inode(sock)?;
    let peer: u64 = read(sock, o.unix_peer)?;
    record.remote_isn = match peer {
        0 => 0,
        peer => unix_inode(peer)?,
    };
    Ok(Transport::Unix)
}

#[inline(always)]
fn unix_inode(sock: u64) -> Result<u32, Counter> {
    let o = offsets();
    let socket: u64 = read(sock, o.sock_socket)?;
    if socket == 0 {
        return Ok(0);
    }
    let file: u64 = read(socket, o.socket_file)?;
    if file == 0 {
        return Ok(0);
    }
    let inode: u64 = read(file, o.file_inode)?;
    Ok(read::<u64>(inode, o.inode_ino)? as u32)
}

/// A TCP connection's counters, read at one moment.
#[derive(Clone, Copy)]
struct Counters {
    /// The peer's FIN is counted as received.
    ended: bool,
    snd_una: u32,
    bytes_acked: u64,
    rcv_nxt: u32,
    bytes_received: u64,
}

impl Counters {
    /// The flags that are looked at must be older than the counters, so that a FIN that comes
    /// meanwhile is not taken for counted.
    #[inline(always)]
    fn read(sock: u64, copy: &mut SockCopy) -> Result<Self, Counter> {
        let o = offsets();
        let flags: u64 = copy.common(o.sock_flags);
        copy.tcp.fill(sock, &o.tcp)?;
        Ok(Self {
            ended: flags & SOCK_DONE != 0,
            bytes_acked: copy.tcp(o.tcp_bytes_acked),
            snd_una: copy.tcp(o.tcp_snd_una),
            bytes_received: copy.tcp(o.tcp_bytes_received),
            rcv_nxt: copy.tcp(o.tcp_rcv_nxt),
        })
    }

    /// The same with what `sock_common` says now.
    #[inline(always)]
    fn read_again(sock: u64, copy: &mut SockCopy) -> Result<Self, Counter> {
        copy.common.fill(sock, &offsets().sock_common)?;
        Self::read(sock, copy)
    }

    #[inline(always)]
    fn id(&self, sock: u64) -> ConnectionId {
        ConnectionId {
            sock,
            send_base: self.snd_una.wrapping_sub(self.bytes_acked as u32),
            receive_base: self.rcv_nxt.wrapping_sub(self.bytes_received as u32),
        }
    }

    /// What these were before or after the change that they were read in the middle of, if they
    /// are of the connection with these bases.
    ///
    /// A softirq adds to the bytes before it moves the sequence number, and when its processor is
    /// taken away in between (a virtual one) they stay torn for longer than anybody could wait.
    /// Then the base of one direction is another, and of one only: of a new connection at the same
    /// address both are.
    #[inline(always)]
    fn mended(self, sock: u64, [send_base, receive_base]: [u32; 2]) -> Option<Self> {
        let id = self.id(sock);
        // Signed: the copy may also have caught the new number and the old bytes.
        let ahead = |base: u32, torn: u32| i64::from(base.wrapping_sub(torn) as i32) as u64;
        let acked = ahead(send_base, id.send_base);
        let received = ahead(receive_base, id.receive_base);
        (acked == 0 || received == 0).then_some(Self {
            bytes_acked: self.bytes_acked.wrapping_sub(acked),
            bytes_received: self.bytes_received.wrapping_sub(received),
            ..self
        })
    }

    /// The capture mode of the connection if it is known, and its counters, mended if need be.
    ///
    /// Not the mode itself: the halves of an empty one would be spilled unset, which verifiers
    /// before 6.3 refuse.
    #[inline(always)]
    fn find(self, sock: u64) -> (Self, Option<&'static Capture>) {
        let known = lookup(&self.id(sock));
        if known.is_some() {
            return (self, known);
        }
        // SAFETY: a copy is taken at once.
        let bases = unsafe { BASES.get(&sock) }.copied();
        match bases.and_then(|bases| self.mended(sock, bases)) {
            Some(mended) => (mended, lookup(&mended.id(sock))),
            None => (self, None),
        }
    }
}

/// Finds the connection's capture mode, making it when new, and fills the
/// sequence numbers, the role and both stream positions (`offset`: written,
/// `other_offset`: read; the caller turns them round for a read).
///
/// A softirq may move the counters while they are copied; a known connection proves
/// the values by being found or mends them, a new one by reading the same twice.
#[inline(always)]
pub fn fill_streams(
    sock: u64,
    copy: &mut SockCopy,
    record: &mut SocketRecord,
) -> Result<Capture, Counter> {
    let (mut last, mut capture) = Counters::read(sock, copy)?.find(sock);
    let mut stable = capture.is_some();
    for _ in 0..STABLE_READS {
        if stable {
            break;
        }
        let again;
        (again, capture) = Counters::read_again(sock, copy)?.find(sock);
        stable = capture.is_some() || again.id(sock) == last.id(sock);
        last = again;
    }
    if !stable {
        count(Counter::Unstable);
        record.flags |= Flags::UNSTABLE;
    }
    let capture = match capture.copied() {
        Some(capture) if capture.role != Role::Unknown as u32 => capture,
        Some(capture) => remember(
            &last,
            sock,
            Capture {
                role: role(sock, &last)?,
                ..capture
            },
        ),
        None => {
            let limit = settings().default_limit;
            let fresh = Capture {
                role: role(sock, &last)?,
                read_limit: limit,
                write_limit: limit,
                ..Capture::default()
            };
            if stable {
                remember(&last, sock, fresh)
            } else {
                fresh
            }
        }
    };
    fill_positions(copy, &last, capture.role, record);
    Ok(capture)
}

#[inline(always)]
fn lookup(id: &ConnectionId) -> Option<&'static Capture> {
    // SAFETY: entries of a map stay where they are; user space replaces them as a whole.
    unsafe { CONNECTIONS.get(id) }
}

#[inline(always)]
fn remember(counters: &Counters, sock: u64, capture: Capture) -> Capture {
    let id = counters.id(sock);
    // A failed insert only costs a second look at the next message.
    let _ = CONNECTIONS.insert(&id, &capture, 0);
    // The peer of a call with a fast-open cookie has not told its number yet.
    if counters.rcv_nxt != 0 {
        let _ = BASES.insert(&sock, &[id.send_base, id.receive_base], 0);
    }
    capture
}

/// Who connected. `bytes_acked` counts the SYN on the connecting side only, while
/// the count of sent bytes leaves it out on both, so the two bases differ by one there.
#[inline(always)]
fn role(sock: u64, counters: &Counters) -> Result<u32, Counter> {
    let o = offsets();
    let state: u8 = read(sock, o.sock_state)?;
    if state == TCP_SYN_SENT {
        return Ok(Role::Connector as u32);
    }
    let tells = state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || state == TCP_SYN_RECV;
    if !tells {
        return Ok(Role::Unknown as u32);
    }
    let sent: u64 = read(sock, o.tcp_bytes_sent)?;
    let retransmitted: u64 = read(sock, o.tcp_bytes_retrans)?;
    let snd_nxt: u32 = read(sock, o.tcp_snd_nxt)?;
    let first_byte = snd_nxt.wrapping_sub(sent.wrapping_sub(retransmitted) as u32);
    let base = counters.snd_una.wrapping_sub(counters.bytes_acked as u32);
    Ok(match first_byte.wrapping_sub(base) {
        1 => Role::Connector as u32,
        0 => Role::Acceptor as u32,
        _ => Role::Unknown as u32,
    })
}

/// From the copy that the counters were read from.
#[inline(always)]
fn fill_positions(copy: &SockCopy, counters: &Counters, role: u32, record: &mut SocketRecord) {
    let o = offsets();
    let write_seq: u32 = copy.tcp(o.tcp_write_seq);
    let copied_seq: u32 = copy.tcp(o.tcp_copied_seq);
    let syn = u64::from(role == Role::Connector as u32);
    let base = counters.snd_una.wrapping_sub(counters.bytes_acked as u32);
    let unacked = u64::from(write_seq.wrapping_sub(counters.snd_una));
    // Negative when another thread read meanwhile what came meanwhile.
    let unread = i64::from(counters.rcv_nxt.wrapping_sub(copied_seq) as i32) as u64;
    let state: u8 = copy.state();
    let fin_sent = u64::from(FIN_SENT >> (state & 31) & 1);
    // The reader has taken the FIN, which is no byte, with or behind the last byte.
    let fin_read = u64::from(counters.ended && unread == 0);
    record.role = role as u8;
    record.local_isn = base.wrapping_sub(u32::from(role == Role::Acceptor as u32));
    record.remote_isn = counters
        .rcv_nxt
        .wrapping_sub(counters.bytes_received as u32)
        .wrapping_sub(1);
    record.offset = (counters.bytes_acked + unacked).wrapping_sub(syn + fin_sent);
    record.other_offset = counters
        .bytes_received
        .wrapping_sub(unread)
        .wrapping_sub(fin_read);
}

/// Forgets a TCP connection. True: it was one that we traced.
#[inline(always)]
pub fn forget(sock: u64, copy: &mut SockCopy, record: &mut SocketRecord) -> Result<bool, Counter> {
    let (counters, capture) = Counters::read_again(sock, copy)?.find(sock);
    let Some(capture) = capture else {
        return Ok(false);
    };
    fill_positions(copy, &counters, capture.role, record);
    let _ = BASES.remove(&sock);
    Ok(CONNECTIONS.remove(&counters.id(sock)).is_ok())
}

/// A traced TCP connection's streams, without making it known.
#[inline(always)]
pub fn peek(sock: u64, copy: &mut SockCopy, record: &mut SocketRecord) -> Result<bool, Counter> {
    let (counters, capture) = Counters::read_again(sock, copy)?.find(sock);
    let Some(capture) = capture else {
        return Ok(false);
    };
    fill_positions(copy, &counters, capture.role, record);
    Ok(true)
}

/// Moves a unix socket's own byte counters and fills the positions as they stand
/// after the message (`offset`: written, `other_offset`: read).
#[inline(always)]
pub fn fill_unix_positions(sock: u64, moved: u64, record: &mut SocketRecord) {
    let writing = record.flags & Flags::WRITE != 0;
    let key = [sock, u64::from(record.local_isn)];
    // SAFETY: a copy is taken at once.
    let [mut read, mut written] = unsafe { UNIX_POSITIONS.get(key) }
        .copied()
        .unwrap_or([0, 0]);
    if writing {
        written += moved;
    } else {
        read += moved;
    }
    let _ = UNIX_POSITIONS.insert(key, [read, written], 0);
    record.offset = written;
    record.other_offset = read;
}
