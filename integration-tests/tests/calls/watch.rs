//! The capture under test, and what it saw.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use collector::capture::{
    Call, Capture, CaptureMode, Counter, Event, GoLayout, Options, ProcessEvent, SocketEvent,
    decode,
};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// How long the end of a connection may take to show.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing can be captured here, if so.
pub fn why_not() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("the capture of calls needs root");
    }
    fs::metadata(VMLINUX)
        .is_err()
        .then_some("the capture of calls needs a kernel with BTF")
}

/// A TCP connection of this process with itself: who connected, who accepted.
pub fn tcp_pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let connector = TcpStream::connect(listener.local_addr()?)?;
    let (acceptor, _) = listener.accept()?;
    connector.set_nodelay(true)?;
    acceptor.set_nodelay(true)?;
    Ok((connector, acceptor))
}

/// Inode of this process's network namespace.
pub fn own_netns() -> Result<u32> {
    Ok(u32::try_from(fs::metadata("/proc/self/ns/net")?.ino())?)
}

/// A running capture with what it saw since the last [`Watch::forget`].
pub struct Watch {
    capture: Capture,
    records: Vec<Vec<u8>>,
    before: Vec<(Counter, u64)>,
}

impl Watch {
    pub fn start(options: &Options) -> Result<Self> {
        let mut watch = Self {
            capture: Capture::start(options)?,
            records: Vec::new(),
            before: Vec::new(),
        };
        watch.forget();
        Ok(watch)
    }

    pub fn trace(&mut self, pid: u32) -> Result<()> {
        Ok(self.capture.trace(pid, GoLayout::default())?)
    }

    /// Traces the test itself, for what needs no program of its own.
    pub fn start_here(options: &Options) -> Result<Self> {
        let mut watch = Self::start(options)?;
        watch.trace(std::process::id())?;
        Ok(watch)
    }

    pub fn untrace(&mut self, pid: u32) {
        self.capture.untrace(pid);
    }

    /// Forgets all that was seen, and counts from here.
    pub fn forget(&mut self) {
        self.capture.drain(usize::MAX, |_| {});
        self.records.clear();
        self.before = self.totals();
    }

    fn totals(&self) -> Vec<(Counter, u64)> {
        let sum = |(counter, values): (Counter, Vec<u64>)| (counter, values.into_iter().sum());
        self.capture.counters().into_iter().map(sum).collect()
    }

    /// How far a counter moved.
    pub fn counted(&self, which: Counter) -> u64 {
        let value = |totals: &[(Counter, u64)]| {
            let found = totals.iter().find(|(counter, _)| *counter == which);
            found.map_or(0, |(_, value)| *value)
        };
        value(&self.totals()) - value(&self.before)
    }

    /// The losses that were counted, and how often.
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        let losses = Counter::ALL.into_iter().filter(|counter| counter.is_loss());
        losses
            .map(|counter| (counter.as_str(), self.counted(counter)))
            .filter(|(_, times)| *times > 0)
            .collect()
    }

    /// Takes what has come; records are there when the call that made them has returned.
    pub fn look(&mut self) {
        let records = &mut self.records;
        self.capture
            .drain(usize::MAX, |record| records.push(record.to_vec()));
    }

    /// Looks until so many connections that were seen are gone.
    pub fn look_for_ends(&mut self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look();
            let ends = self
                .sockets()?
                .filter(|event| event.call == Call::Closed)
                .count();
            if ends >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{ends} connections of {count} are gone");
            }
            self.capture.wait(Duration::from_millis(1));
        }
    }

    /// Every socket event, in the order of capture.
    pub fn sockets(&self) -> Result<impl Iterator<Item = SocketEvent<'_>>> {
        let events = self.records.iter().map(|record| decode(record));
        let events = events.collect::<Result<Vec<_>, _>>().context("decoding")?;
        Ok(events.into_iter().filter_map(|event| match event {
            Event::Socket(event) => Some(event),
            Event::Process { .. } => None,
        }))
    }

    /// The messages of this process, in the order of capture: no connects and no ends.
    pub fn messages(&self) -> Result<Vec<SocketEvent<'_>>> {
        let own = std::process::id();
        let message =
            |event: &SocketEvent<'_>| (event.call as u8) < Call::Connect as u8 && event.tgid == own;
        Ok(self.sockets()?.filter(message).collect())
    }

    /// The children that a process was seen to make.
    pub fn children(&self, parent: u32) -> Vec<u32> {
        let child = |record: &Vec<u8>| match decode(record) {
            Ok(Event::Process {
                event: ProcessEvent::Fork,
                tgid,
                other,
            }) if tgid == parent => Some(other),
            _ => None,
        };
        self.records.iter().filter_map(child).collect()
    }

    /// How many records of any kind were received.
    pub fn received(&self) -> usize {
        self.records.len()
    }

    /// Changes the mode of the connection that the last message belongs to.
    pub fn set_mode(&mut self, mode: CaptureMode) -> Result<()> {
        let messages = self.messages()?;
        let event = messages.last().context("no message")?;
        let (id, role) = (event.connection_id(), event.role as u32);
        self.capture.set_mode(id, CaptureMode { role, ..mode });
        Ok(())
    }
}
