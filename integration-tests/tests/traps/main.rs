//! Links from process to process hold through what networks and TCP do to a connection.
//!
//! Each request asks for a number of its own, over connections that are kept: all its spans have it
//! in their URL, and no other span has. So a parent with another number is a wrong one, and a way that
//! lacks a hop is a lost link.

mod links;
mod proxies;
mod scene;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::collector::{Collector, Options};
use integration_tests::network::Network;
use rustix::process::{Pid, Signal, kill_process};

use crate::links::{DIRECT, check_parents, check_roots, check_ways, ways};
use crate::scene::{CONNECTIONS, Scene, only, skip};

/// Of each test.
const REQUESTS: u32 = 800;
/// An address that nobody has: the router makes another of it.
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const EXPORT_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked on each connection whether it is followed again.
const PROBES: usize = 20;

/// Asks in this manner, and each request has its two spans.
fn check_manner(manner: &str) -> Result<()> {
    if skip(manner, &[]) {
        return Ok(());
    }
    let mut scene = Scene::direct()?;
    let collector = scene.trace(&[])?;
    let numbers = scene.asker.ask(manner, REQUESTS)?;
    let finished = collector.stop()?;
    check_ways(&finished, &numbers, &DIRECT)?;
    finished.check()
}

#[test]
fn both_addresses_may_change_on_the_way() -> Result<()> {
    if skip("NAT", &[]) {
        return Ok(());
    }
    let (mut scene, ()) = Scene::with(|_, network, at| {
        let to = SocketAddrV4::new(VIRTUAL, 80);
        network.redirect(to, at)?;
        Ok((to, ()))
    })?;
    let collector = scene.trace(&[])?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    check_ways(&finished, &numbers, &DIRECT)?;
    let (named, seen) = (
        VIRTUAL.to_string(),
        scene.network.router.address.to_string(),
    );
    for span in &finished.spans {
        let peer = if span.kind == "client" { &named } else { &seen };
        ensure!(
            span.text("network.peer.address") == peer,
            "not {peer}: {span:#?}"
        );
    }
    finished.check()
}

#[test]
fn requests_in_one_write_have_their_own_spans() -> Result<()> {
    check_manner("together")
}

#[test]
fn requests_in_writes_that_end_anywhere_have_their_own_spans() -> Result<()> {
    check_manner("in_pieces")
}

/// Three requests on each connection, the first with its first packet.
fn check_fast_open(manner: &str, requests: u32, losing: Option<&str>) -> Result<()> {
    if skip(manner, &[]) {
        return Ok(());
    }
    let mut scene = Scene::direct()?;
    let Network {
        behind_nat, open, ..
    } = &scene.network;
    for host in [behind_nat, open] {
        host.shell("echo 3 >/proc/sys/net/ipv4/tcp_fastopen")?;
    }
    // The first connection brings the cookie.
    scene.asker.ask("with_the_first_packet", 1)?;
    if let Some(packets) = losing {
        scene.network.lose(packets)?;
    }
    let options = Options {
        // A client has no name before its peer has answered, and is told of only then.
        decision_wait: Some("1m"),
        ..scene.both_ends_and(&[])
    };
    let collector = Collector::start(&scene.sandbox, &options)?;
    let numbers = scene.asker.ask(manner, requests)?;
    let finished = collector.stop()?;
    let connections = u64::from(requests / 3);
    for (host, name) in [
        (&scene.network.behind_nat, "TcpExtTCPFastOpenActive"),
        (&scene.network.open, "TcpExtTCPFastOpenPassive"),
    ] {
        let opened = host.counted(name)?;
        ensure!(opened >= connections, "{name}: {opened} of {connections}");
    }
    check_ways(&finished, &numbers, &DIRECT)?;
    finished.check()
}

#[test]
fn a_request_may_come_with_the_first_packet() -> Result<()> {
    check_fast_open("with_the_first_packet", REQUESTS, None)
}

#[test]
fn a_request_may_leave_and_be_answered_before_its_connection_is_there() -> Result<()> {
    // Half of the server's first packets: it answers while the client does not know it yet.
    let first = "tcp flags & (syn | ack) == syn | ack numgen random mod 2 0";
    check_fast_open("with_the_first_packet_at_once", 96, Some(first))
}

#[test]
fn a_request_may_be_answered_before_the_client_is_sure() -> Result<()> {
    // Half of the bare acknowledgements, by which the server learns that the client is there.
    let bare = "ip length 52 tcp flags & (syn | ack | fin) == ack numgen random mod 2 0";
    check_fast_open("with_the_first_packet", REQUESTS, Some(bare))
}

#[test]
fn connections_may_be_older_than_the_collector() -> Result<()> {
    if skip("old connections", &[]) {
        return Ok(());
    }
    let mut scene = Scene::direct()?;
    scene.asker.ask("in_pieces", REQUESTS)?;
    let collector = scene.trace(&[])?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    check_ways(&finished, &numbers, &DIRECT)?;
    finished.check()
}

#[test]
fn a_server_whose_caller_is_not_traced_is_a_root_and_says_so() -> Result<()> {
    if skip("only the server", &[]) {
        return Ok(());
    }
    let mut scene = Scene::direct()?;
    let collector = Collector::start(&scene.sandbox, &only(&[&scene.answers]))?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    check_roots(&finished, &numbers, DIRECT[1], "caller_not_observed")?;
    finished.check()
}

#[test]
fn a_client_whose_server_is_not_traced_is_a_root_and_says_so() -> Result<()> {
    if skip("only the client", &[]) {
        return Ok(());
    }
    let mut scene = Scene::direct()?;
    let collector = Collector::start(&scene.sandbox, &only(&[&scene.asker.process]))?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    check_roots(&finished, &numbers, DIRECT[0], "no_open_request")?;
    finished.check()
}

#[test]
fn packets_may_be_lost_and_sent_again() -> Result<()> {
    if skip("lost packets", &[]) {
        return Ok(());
    }
    let mut scene = Scene::direct()?;
    scene
        .network
        .lose("meta l4proto tcp numgen random mod 10 0")?;
    // What was sent again before it looks must not mislead the collector either.
    scene.asker.ask("one_by_one", REQUESTS / 4)?;
    let collector = scene.trace(&[])?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    for host in [&scene.network.behind_nat, &scene.network.open] {
        let again = host.counted("TcpRetransSegs")?;
        ensure!(again > 10, "only {again} packets were sent again");
    }
    check_ways(&finished, &numbers, &DIRECT)?;
    finished.check()
}

/// Asks until a request that came after the losses is seen from both ends on each connection.
fn ask_until_seen(scene: &mut Scene, collector: &Collector) -> Result<()> {
    for _ in 0..PROBES {
        let probes = scene.asker.ask("one_by_one", CONNECTIONS)?;
        let after = scene.asker.ask("one_by_one", CONNECTIONS)?;
        let spans = collector.wait_for(EXPORT_LIMIT, "what came after the losses", |spans| {
            ways(spans, &after).is_ok_and(|ways| !ways.is_empty())
        })?;
        if ways(&spans, &probes)?.values().flatten().count() == 2 * probes.len() {
            return Ok(());
        }
    }
    bail!("a connection does not find back after its losses")
}

#[test]
fn records_that_are_lost_cost_their_spans_and_make_no_wrong_parent() -> Result<()> {
    if skip("lost records", &[]) {
        return Ok(());
    }
    let mut scene = Scene::direct()?;
    let options = Options {
        ring_buffer_mib: Some(1),
        ..scene.both_ends_and(&[])
    };
    let collector = Collector::start(&scene.sandbox, &options)?;
    let before = scene.asker.ask("one_by_one", REQUESTS)?;
    let pid = i32::try_from(collector.pid()).ok().and_then(Pid::from_raw);
    let pid = pid.context("a process has an id")?;
    // It gets no processor for a while.
    kill_process(pid, Signal::STOP)?;
    let burst = scene.asker.ask_at_length("one_by_one", REQUESTS, 1000);
    let more = scene.asker.ask_at_length("together", REQUESTS, 1000);
    kill_process(pid, Signal::CONT)?;
    let lossy = burst?.start..more?.end;
    ask_until_seen(&mut scene, &collector)?;
    let after = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    let said = || finished.said.join("\n");
    let lost = [("reason", "ring_full")];
    let lost = finished.summary.sum("deeptrace_kernel_lost", &lost);
    let seen = ways(&finished.spans, &lossy)?;
    println!(
        "{lost} records lost, spans of {} of {} requests",
        seen.len(),
        lossy.len()
    );
    ensure!(
        lost > 0 && seen.len() < lossy.len(),
        "nothing was lost\n{}",
        said()
    );
    check_parents(&finished.spans)?;
    check_ways(&finished, &before, &DIRECT).with_context(said)?;
    check_ways(&finished, &after, &DIRECT).with_context(said)
}
