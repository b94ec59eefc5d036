//! Which ports a process listens on and which it has connected to.
//!
//! The kernel lists sockets by network namespace and descriptors by process;
//! the inode of a socket joins the two. Read only when a rule asks for ports.

use super::procfs::Entry;
use super::{Error, Needs};
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};

/// Ports of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// TCP ports it listens on.
    pub listening: BTreeSet<u16>,
    /// TCP ports that it has connected to, of any peer.
    pub peers: BTreeSet<u16>,
}

/// The socket lists of network namespaces, each read once: a snapshot. Reading one
/// costs 5 ms for each thousand of connections, so it is not made for each process;
/// who keeps it hears of new listeners otherwise.
#[derive(Debug, Default)]
pub struct SocketTables {
    namespaces: HashMap<u64, SocketTable>,
    /// Processes whose descriptors we may not list: their ports stay unknown until they listen
    /// or connect anew.
    pub denied: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct SocketTable {
    listening: HashMap<u64, u16>,
    peers: HashMap<u64, u16>,
}

/// Bytes read of one list: some 200,000 sockets. The rest goes unseen until its
/// owner listens or connects again.
const MAX_TABLE_BYTES: usize = 32 * 1024 * 1024;
/// Descriptors looked at per process.
const MAX_DESCRIPTORS: usize = 65_536;

const ESTABLISHED: u8 = 0x01;
const SYN_SENT: u8 = 0x02;
const LISTEN: u8 = 0x0a;

impl SocketTables {
    /// The ports of a process, as far as rules ask for ports.
    pub fn ports(&mut self, entry: &Entry, needs: Needs) -> Result<Ports, Error> {
        let mut ports = Ports::default();
        if !needs.listen_ports && !needs.peer_ports {
            return Ok(ports);
        }
        let inodes = match entry.socket_inodes(MAX_DESCRIPTORS) {
            Err(Error::Denied { .. }) => {
                self.denied += 1;
                return Ok(ports);
            }
            inodes => inodes?,
        };
        if inodes.is_empty() {
            return Ok(ports);
        }
        let Some(namespace) = entry.namespace("ns/net")? else {
            return Ok(ports);
        };
        let table = match self.namespaces.entry(namespace) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(SocketTable::read(entry, needs)?),
        };
        ports.listening = inodes
            .iter()
            .filter_map(|inode| table.listening.get(inode).copied())
            .collect();
        ports.peers = inodes
            .iter()
            .filter_map(|inode| table.peers.get(inode).copied())
            .collect();
        Ok(ports)
    }
}

impl SocketTable {
    fn read(entry: &Entry, needs: Needs) -> Result<Self, Error> {
        let enough = |text: &[u8]| !needs.peer_ports && is_past_listeners(text);
        let mut text = entry.read_until("net/tcp", MAX_TABLE_BYTES, enough)?;
        match entry.read_until("net/tcp6", MAX_TABLE_BYTES, enough) {
            Ok(more) => text.extend_from_slice(&more),
            // A process that has exited took both lists along; a kernel without IPv6 has one.
            Err(Error::Gone(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let sockets: Vec<Socket> = text.lines().filter_map(Socket::parse).collect();
        let listening: HashMap<u64, u16> = sockets
            .iter()
            .filter(|socket| socket.state == LISTEN)
            .map(|socket| (socket.inode, socket.local))
            .collect();
        let served: BTreeSet<u16> = listening.values().copied().collect();
        // A connection from a port that somebody listens on was accepted there:
        // its peer's port is an accident.
        let connected = |socket: &&Socket| {
            matches!(socket.state, ESTABLISHED | SYN_SENT) && !served.contains(&socket.local)
        };
        let peers = sockets
            .iter()
            .filter(connected)
            .map(|socket| (socket.inode, socket.remote))
            .collect();
        Self { listening, peers }
    }
}

/// The kernel lists sockets that listen first, and there may be many others.
fn is_past_listeners(text: &[u8]) -> bool {
    let whole = text.rsplitn(2, |byte| *byte == b'\n').nth(1);
    let last = whole.and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    let state = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        u8::from_str_radix(line.split_ascii_whitespace().nth(3)?, 16).ok()
    };
    last.and_then(state).is_some_and(|state| state != LISTEN)
}

struct Socket {
    local: u16,
    remote: u16,
    state: u8,
    inode: u64,
}

impl Socket {
    /// `0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 uid timeout inode ...`
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = port(fields.next()?)?;
        let remote = port(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        // Inode 0: closed by its process, kept by the kernel.
        (inode != 0).then_some(Self {
            local,
            remote,
            state,
            inode,
        })
    }
}

fn port(address: &str) -> Option<u16> {
    u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Pid, Proc};
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const ALL: Needs = Needs {
        listen_ports: true,
        peer_ports: true,
        containers: false,
    };

    #[test]
    fn the_kernels_list_is_read() {
        let text = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  33        0 500 1 x 100 0 0 10 0
   1: 0100007F:0050 0100007F:C001 01 00000000:00000000 00:00000000 00000000  33        0 501 1 x 20 4 30 10 -1
   2: 0100007F:C002 0100007F:1538 01 00000000:00000000 00:00000000 00000000  33        0 502 1 x 20 4 30 10 -1
   3: 0100007F:C003 0100007F:1538 06 00000000:00000000 03:00000000 00000000   0        0 0 3 x
   4: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 503 1
   5: broken";
        let table = SocketTable::parse(text);
        assert_eq!(table.listening, HashMap::from([(500, 80), (503, 8080)]));
        assert_eq!(table.peers, HashMap::from([(502, 5432)]));
    }

    #[test]
    fn reading_for_listeners_ends_behind_them() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let listens = "   0: 00000000:0050 00000000:0000 0A 0:0 00:0 0 33 0 500\n";
        let waits = "   1: 0100007F:C003 0100007F:1538 06 0:0 03:0 0 0 0 0\n";
        let check = |text: &[&str], expected: bool| {
            let text = text.concat();
            assert_eq!(is_past_listeners(text.as_bytes()), expected, "{text}");
        };
        check(&[], false);
        check(&[header], false);
        check(&[header, listens], false);
        check(&[header, listens, waits.trim_end()], false);
        check(&[header, listens, waits], true);
        check(&[header, listens, waits, "   2: 01"], true);
    }

    #[test]
    fn our_own_sockets_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("[::1]:0");
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let entry = Proc::open("/proc")
            .unwrap()
            .entry(Pid(std::process::id()))
            .unwrap();
        let ports = SocketTables::default().ports(&entry, ALL).unwrap();
        assert!(ports.listening.contains(&port) && ports.peers.contains(&port));
        assert!(!ports.peers.contains(&stream.local_addr().unwrap().port()));
        if let Ok(other) = other {
            assert!(
                ports
                    .listening
                    .contains(&other.local_addr().unwrap().port())
            );
        }
        let none = SocketTables::default()
            .ports(&entry, Needs::default())
            .unwrap();
        assert_eq!(none, Ports::default());
    }
}
