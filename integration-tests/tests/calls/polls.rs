//! How often a thread had waited for descriptors before a message: the rounds of its loop.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;

use anyhow::{Result, ensure};
use collector::capture::{Call, Options};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use crate::skipped;
use crate::watch::{Watch, tcp_pair};

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Writes a byte before and after it waits once in each way, without anything to come, and connects.
fn rounds(mut socket: TcpStream) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.write_all(b"a")?;
    let mut wanted = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
    poll(&mut wanted, Some(&AT_ONCE))?;
    socket.write_all(b"b")?;
    socket.write_all(b"c")?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut events: Vec<epoll::Event> = Vec::with_capacity(1);
    epoll::wait(
        &set,
        rustix::buffer::spare_capacity(&mut events),
        Some(&AT_ONCE),
    )?;
    let _connected = TcpStream::connect(listener.local_addr()?)?;
    socket.write_all(b"d")?;
    Ok(())
}

#[test]
fn a_message_tells_how_often_its_thread_had_waited_for_descriptors() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options::default())?;
    let (socket, _other) = tcp_pair()?;
    let thread = thread::spawn(move || rounds(socket));
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    watch.look();
    let messages = watch.messages()?;
    let polls: Vec<u32> = messages.iter().map(|event| event.polls).collect();
    ensure!(polls == [0, 1, 1, 2], "{polls:?}");
    let mut connects = watch.sockets()?.filter(|event| event.call == Call::Connect);
    ensure!(connects.any(|event| event.polls == 2), "the connection");
    Ok(())
}
