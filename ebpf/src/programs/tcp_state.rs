//! `raw_tp/inet_sock_set_state (const struct sock *sk, int oldstate, int newstate)`:
//! the end of connections, and who listens or connects.
//!
//! The end comes from here and not from close(2): at its exit the file is gone,
//! and a descriptor that was duplicated or inherited ends nothing.
//!
//! From Linux 7.0 on a task can be preempted in `tcp_state`, and until it goes on the kernel does
//! not run that program for other tasks of this CPU. `tcp_state_again`, attached after it, does
//! so for what it was not run for; what both do, user space takes once. A tracepoint on which
//! programs are not preempted would not do, as for `sys_exit`: there a program is not run in an
//! interrupt of any other one.

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
    let (Some(first), Some(second)) = (entry(0), entry(1)) else {
        count(Counter::NoScratch);
        return 0;
    };
    // The second, if the other program is still to come for what the first has.
    let free = if first.seen == 0 { first } else { second };
    free.seen = name_of(&ctx);
    run(&ctx, 0);
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_state_again(ctx: RawTracePointContext) -> i32 {
    let (Some(first), Some(second)) = (entry(0), entry(1)) else {
        count(Counter::NoScratch);
        return 0;
    };
    for entry in [second, first] {
        if entry.seen == name_of(&ctx) {
            entry.seen = 0;
            return 0;
        }
    }
    count(Counter::Preempted);
    run(&ctx, 2);
    0
}

/// Tells a change of state from others of this CPU: addresses of the kernel have their first
/// eight bits set.
#[inline(always)]
fn name_of(ctx: &RawTracePointContext) -> u64 {
    ctx.arg::<u64>(0) ^ (ctx.arg::<i32>(2) as u64) << 56
}

#[inline(always)]
fn entry(index: u32) -> Option<&'static mut StateScratch> {
    // SAFETY: a live entry of this CPU; a run marks its own as busy.
    unsafe { STATE_SCRATCH.get_ptr_mut(index).map(|entry| &mut *entry) }
}

/// Works in the entry of this index or, in an interrupt of a run that does, in the next.
#[inline(always)]
fn run(ctx: &RawTracePointContext, index: u32) {
    let free = entry(index).filter(|entry| entry.busy == 0);
    let Some(scratch) = free.or_else(|| entry(index + 1)) else {
        return count(Counter::NoScratch);
    };
    scratch.busy = 1;
    if let Err(counter) = try_tcp_state(ctx, scratch) {
        count(counter);
    }
    scratch.busy = 0;
}

#[inline(always)]
fn try_tcp_state(ctx: &RawTracePointContext, scratch: &mut StateScratch) -> Result<(), Counter> {
    let sock: u64 = ctx.arg(0);
    let state: u64 = ctx.arg::<i32>(2) as u64;
    match state {
        TCP_LISTEN => report(ProcessEvent::Listen, local_port(sock)?),
        TCP_SYN_SENT if settings().report_connects != 0 => {
            let port: u16 = read(sock, offsets().sock_dport)?;
            report(ProcessEvent::Connect, u16::from_be(port))
        }
        TCP_FIN_WAIT1 | TCP_LAST_ACK => ended(scratch, sock, Call::LocalClose),
        TCP_CLOSE => ended(scratch, sock, Call::Closed),
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
fn ended(scratch: &mut StateScratch, sock: u64, call: Call) -> Result<(), Counter> {
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
