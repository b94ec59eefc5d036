//! `raw_tp/inet_sock_set_state (const struct sock *sk, int oldstate, int newstate)`:
//! the end of connections, and who listens or connects.
//!
//! The end comes from here and not from close(2): at its exit the file is gone,
//! and a descriptor that was duplicated or inherited ends nothing.

use crate::emit::{begin, submit_bare, submit_process};
use crate::maps::{STATE_SCRATCH, StateScratch, count, offsets, settings};
use crate::sock::{fill_identity, forget, local_port, peek};
use crate::task::read;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use ebpf_common::{Call, Counter, ProcessEvent, ProcessRecord, RecordKind};

const TCP_SYN_SENT: u64 = 2;
const TCP_FIN_WAIT1: u64 = 4;
const TCP_CLOSE: u64 = 7;
const TCP_LAST_ACK: u64 = 9;
const TCP_LISTEN: u64 = 10;

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_state(ctx: RawTracePointContext) -> i32 {
    if let Err(counter) = try_tcp_state(&ctx) {
        count(counter);
    }
    0
}

#[inline(always)]
fn try_tcp_state(ctx: &RawTracePointContext) -> Result<(), Counter> {
    let sock: u64 = ctx.arg(0);
    let state: u64 = ctx.arg::<i32>(2) as u64;
    match state {
        TCP_LISTEN => report(ProcessEvent::Listen, local_port(sock)?),
        TCP_SYN_SENT if settings().report_connects != 0 => {
            let port: u16 = read(sock, offsets().sock_dport)?;
            report(ProcessEvent::Connect, u16::from_be(port))
        }
        TCP_FIN_WAIT1 | TCP_LAST_ACK => ended(sock, Call::LocalClose),
        TCP_CLOSE => ended(sock, Call::Closed),
        _ => Ok(()),
    }
}

#[inline(always)]
fn report(event: ProcessEvent, port: u16) -> Result<(), Counter> {
    submit_process(&ProcessRecord {
        kind: RecordKind::Process as u8,
        event: event as u8,
        reserved: 0,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        other: u32::from(port),
        reserved2: 0,
        // SAFETY: always callable.
        time_ns: unsafe { bpf_ktime_get_ns() },
    })
}

#[inline(always)]
fn ended(sock: u64, call: Call) -> Result<(), Counter> {
    let scratch = free_scratch()?;
    scratch.busy = 1;
    let done = submit_end(scratch, sock, call);
    scratch.busy = 0;
    done
}

/// The entry of this CPU that no interrupted run of this program uses.
#[inline(always)]
fn free_scratch() -> Result<&'static mut StateScratch, Counter> {
    // SAFETY: live entries of this CPU; who uses one has marked it.
    let entry = |index| unsafe { STATE_SCRATCH.get_ptr_mut(index).map(|entry| &mut *entry) };
    let first = entry(0).filter(|entry| entry.busy == 0);
    first.or_else(|| entry(1)).ok_or(Counter::NoScratch)
}

#[inline(always)]
fn submit_end(scratch: &mut StateScratch, sock: u64, call: Call) -> Result<(), Counter> {
    let StateScratch {
        record, sock: copy, ..
    } = scratch;
    let ids = bpf_get_current_pid_tgid();
    begin(record, call as u8, (ids >> 32) as u32, ids as u32, -1);
    let known = match call {
        Call::Closed => forget(sock, copy, record)?,
        _ => peek(sock, copy, record)?,
    };
    if !known {
        return Ok(());
    }
    fill_identity(sock, copy, record)?;
    submit_bare(record)
}
