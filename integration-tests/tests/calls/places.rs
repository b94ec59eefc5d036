//! Where calls come from and go to: other namespaces, other addresses, other tables of calls.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use collector::capture::{Call, Options};
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox};
use integration_tests::workload::compat;

use crate::skipped;
use crate::watch::{Watch, own_netns};

/// Says which namespace it is in, waits, sends itself five bytes, says who it is, waits.
const IN_NAMESPACE: &str = r#"
import os, socket, sys
print(os.stat("/proc/self/ns/net").st_ino, flush=True)
sys.stdin.readline()
listener = socket.create_server(("127.0.0.1", 0))
one = socket.create_connection(listener.getsockname())
other, _ = listener.accept()
one.sendall(b"hello")
other.recv(10)
print(one.getsockname()[1], flush=True)
sys.stdin.readline()
"#;

/// Lets a process go on, and gives what it says next.
fn go_on(
    process: &mut Process,
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
) -> Result<String> {
    let input = process.child.stdin.as_mut().context("stdin is a pipe")?;
    input.write_all(b"\n")?;
    Ok(lines.next().context("it ended")??)
}

#[test]
fn a_network_namespace_is_told_from_another() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    if let Some(why) = programs::why_not(&["unshare", "ip", "python3"]) {
        println!("skipped: network namespaces: {why}");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let mut command = Command::new("unshare");
    let script = r#"ip link set lo up && exec python3 -c "$0""#;
    command.args(["-n", "sh", "-c", script, IN_NAMESPACE]);
    let mut process = sandbox.spawn("namespace", &command, Output::Conversation)?;
    let output = process.child.stdout.take().context("stdout is a pipe")?;
    let mut lines = BufReader::new(output).lines();
    let netns: u32 = lines.next().context("it ended")??.parse()?;
    ensure!(netns != own_netns()?, "it is in ours");
    let mut watch = Watch::start(&Options::default())?;
    watch.trace(process.pid())?;
    let port: u16 = go_on(&mut process, &mut lines)?.parse()?;
    watch.look();
    let events: Vec<_> = watch.sockets()?.collect();
    let calls: Vec<_> = events.iter().map(|event| event.call).collect();
    let wanted = [Call::Connect, Call::Accept4, Call::Sendto, Call::Recvfrom];
    ensure!(calls == wanted, "{calls:?}, not {wanted:?}");
    ensure!(
        events.iter().all(|event| event.netns == netns),
        "{events:?}"
    );
    let local = events[2].local.context("an address")?;
    ensure!(
        local == SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        "{local}"
    );
    process.stop()?;
    Ok(())
}

#[test]
fn a_datagram_bears_the_address_it_was_sent_to() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options::default())?;
    let here = |ip: std::net::IpAddr| UdpSocket::bind((ip, 0));
    let (first, second) = (
        here(Ipv4Addr::LOCALHOST.into())?,
        here(Ipv4Addr::LOCALHOST.into())?,
    );
    let connected = here(Ipv4Addr::LOCALHOST.into())?;
    connected.connect(first.local_addr()?)?;
    let dual = here(Ipv6Addr::UNSPECIFIED.into())?;
    let (to_first, to_second) = (first.local_addr()?, second.local_addr()?);
    let cases = [
        ("connected", connected.send(b"1")?, to_first),
        ("elsewhere", connected.send_to(b"2", to_second)?, to_second),
        ("connected again", connected.send(b"3")?, to_first),
        (
            "IPv4 from an IPv6 socket",
            dual.send_to(b"4", to_second)?,
            to_second,
        ),
    ];
    watch.look();
    let messages = watch.messages()?;
    ensure!(messages.len() == cases.len(), "{messages:?}");
    for (event, (name, _, to)) in messages.iter().zip(cases) {
        ensure!(
            event.remote == Some(to),
            "{name}: {:?}, not {to}",
            event.remote
        );
    }
    Ok(())
}

#[test]
fn calls_of_the_32_bit_table_are_counted_and_not_misread() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let mut watch = Watch::start(&Options {
        unix_sockets: true,
        ..Options::default()
    })?;
    for bits in [32, 64] {
        let Ok(program) = compat(bits) else {
            println!("skipped: 32-bit calls: cc cannot build for {bits} bits");
            continue;
        };
        let command = Command::new(program);
        let mut process = sandbox.spawn(&bits.to_string(), &command, Output::Conversation)?;
        let mut output = process.child.stdout.take().context("stdout is a pipe")?;
        watch.trace(process.pid())?;
        watch.forget();
        let mut input = process.child.stdin.take().context("stdin is a pipe")?;
        input.write_all(b"\n")?;
        let mut done = [0];
        if output.read_exact(&mut done).is_err() {
            println!("skipped: 32-bit calls: this kernel has none");
            return Ok(());
        }
        process.stop()?;
        watch.look();
        // read, write and read, write: those of pipes too, which are not told apart.
        ensure!(
            watch.losses() == [("compat", 4)],
            "{bits} bits: {:?}",
            watch.losses()
        );
        let events: Vec<_> = watch.sockets()?.collect();
        ensure!(events.is_empty(), "{bits} bits: {events:?}");
    }
    Ok(())
}
