//! `raw_tp/sys_exit (struct pt_regs *regs, long ret)`: every system call's return.
//!
//! One hook for all calls: at exit the saved registers still hold the
//! arguments, so nothing has to be remembered from the entry.
//!
//! From Linux 7.0 on a task can be preempted in a program on a raw tracepoint, and the kernel
//! does not run that program for other tasks of this CPU before it has ended: their calls
//! would be lost. There the same is done on the tracepoint `raw_syscalls:sys_exit`, on
//! which programs are not preempted, and which costs more.

use crate::emit::{begin, scratch, submit_bare};
use crate::filter::{Task, traced_task};
use crate::goroutine::current_goroutine;
use crate::iov::{Buffer, MessageHeader, read_user};
use crate::maps::{Scratch, Stage, Work, call_of, count, offsets};
use crate::programs::messages::go_on;
use crate::programs::waking::{after_futex, after_poll, polls_of};
use crate::sock::{Transport, fill_identity, fill_streams};
use crate::task::{Arguments, is_compat, read, sock_of_fd};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::{raw_tracepoint, tracepoint};
use aya_ebpf::programs::{RawTracePointContext, TracePointContext};
use ebpf_common::{COMPAT_CALL, Call, Counter, FUTEX_CALL, POLL_CALL, Role};

const EINPROGRESS: i64 = 115;
const MSG_OOB: u64 = 0x1;
const MSG_PEEK: u64 = 0x2;
const MSG_TRUNC: u64 = 0x20;
const MSG_ERRQUEUE: u64 = 0x2000;
const TCP_SYN_SENT: u8 = 2;
const TCP_CLOSE: u8 = 7;

/// Of the call's result in the tracepoint's record.
const RESULT_OFFSET: u32 = 16;

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    if let Err(counter) = try_sys_exit(&ctx, ctx.arg(0), ctx.arg(1)) {
        count(counter);
    }
    0
}

#[tracepoint]
pub fn sys_exit_tracepoint(ctx: TracePointContext) -> u32 {
    // SAFETY: the current task has saved registers; Linux has the helpers from 5.15 on.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
    let result = read(ctx.as_ptr() as u64, RESULT_OFFSET);
    if let Err(counter) = result.and_then(|result| try_sys_exit(&ctx, regs as u64, result)) {
        count(counter);
    }
    0
}

#[inline(always)]
fn try_sys_exit(ctx: &impl EbpfContext, regs: u64, result: i64) -> Result<(), Counter> {
    let entry = call_of(read(regs, offsets().regs_number)?);
    if entry == 0 {
        return Ok(());
    }
    let task = traced_task()?;
    if is_compat()? {
        let moved = entry & COMPAT_CALL != 0 && result > 0;
        return if moved { Err(Counter::Compat) } else { Ok(()) };
    }
    let call = entry & !COMPAT_CALL;
    if call == FUTEX_CALL {
        return after_futex(regs, result, task.tid);
    }
    if call == POLL_CALL {
        return after_poll(task.tid);
    }
    if call == 0 {
        return Ok(());
    }
    if result < 0 && call < Call::Connect as u8 {
        return Err(Counter::CallFailed);
    }
    let stage = begin_call(scratch()?, regs, call, result, &task)?;
    go_on(ctx, stage)
}

/// Nothing: it is done with already.
#[inline(always)]
fn begin_call(
    scratch: &mut Scratch,
    regs: u64,
    call: u8,
    result: i64,
    task: &Task,
) -> Result<Option<Stage>, Counter> {
    scratch.arguments.fill(regs, &offsets().regs)?;
    scratch.work.goroutine = current_goroutine(regs, &task.target.go);
    if call >= Call::Connect as u8 {
        return try_connection(scratch, call, result, task).map(|()| None);
    }
    let args = &scratch.arguments;
    let work = &mut scratch.work;
    work.call = u32::from(call);
    work.tgid = task.tgid;
    work.tid = task.tid;
    work.moved = result as u64;
    work.fd = args.get(0) as i32;
    work.writing = u32::from(call >= Call::Write as u8 && call <= Call::Sendfile as u8);
    work.discarded = 0;
    work.cut = 0;
    work.peer = 0;
    describe(args, call, work).map(Some)
}

/// Fills in where the call's bytes and its peer's address lie.
#[inline(always)]
fn describe(args: &Arguments, call: u8, work: &mut Work) -> Result<Stage, Counter> {
    if call == Call::Sendfile as u8 || call == Call::Splice as u8 {
        return unseen(args, call, work).map(|()| Stage::Message);
    }
    let second = args.get(1);
    if call == Call::Recvmmsg as u8 || call == Call::Sendmmsg as u8 {
        if call == Call::Recvmmsg as u8 {
            work.discarded = discards(args.get(3))?;
        }
        work.buffer = Buffer::scattered(second, 0);
        return Ok(Stage::Lengths);
    }
    let third = args.get(2);
    if call == Call::Recvmsg as u8 || call == Call::Sendmsg as u8 {
        let header: MessageHeader = read_user(second)?;
        work.buffer = Buffer::scattered(header.iov, header.iov_len);
        work.peer = header.name;
        if call == Call::Recvmsg as u8 {
            work.discarded = discards(third)?;
            work.cut = u32::from(u64::from(header.flags) & MSG_TRUNC != 0);
        }
    } else if call == Call::Readv as u8 || call == Call::Writev as u8 {
        work.buffer = Buffer::scattered(second, third);
    } else {
        work.buffer = Buffer::plain(second, third);
        if call == Call::Recvfrom as u8 {
            work.discarded = discards(args.get(3))?;
            // Only with MSG_TRUNC does the call tell the whole length.
            work.cut = u32::from(work.moved > third);
        }
        if call == Call::Recvfrom as u8 || call == Call::Sendto as u8 {
            work.peer = args.get(4);
        }
    }
    Ok(Stage::Message)
}

/// Not 0 if `MSG_TRUNC` is set, with which TCP copies nothing. Calls that read beside
/// the stream move nothing of it.
#[inline(always)]
fn discards(call_flags: u64) -> Result<u32, Counter> {
    if call_flags & (MSG_OOB | MSG_PEEK | MSG_ERRQUEUE) != 0 {
        return Err(Counter::Peeked);
    }
    Ok(u32::from(call_flags & MSG_TRUNC != 0))
}

/// sendfile(out, in, ..) and splice(in, .., out, ..): the stream moves, unseen.
#[inline(always)]
fn unseen(args: &Arguments, call: u8, work: &mut Work) -> Result<(), Counter> {
    if work.moved == 0 {
        return Err(Counter::CallFailed);
    }
    work.buffer = Buffer::UNSEEN;
    if call == Call::Splice as u8 {
        let into = args.get(2) as i32;
        work.writing = u32::from(sock_of_fd(into).is_ok());
        if work.writing != 0 {
            work.fd = into;
        }
    }
    Ok(())
}

/// connect, accept, accept4: which thread opened a connection, and in which role.
#[inline(always)]
fn try_connection(
    scratch: &mut Scratch,
    call: u8,
    result: i64,
    task: &Task,
) -> Result<(), Counter> {
    let connecting = call == Call::Connect as u8;
    if result < 0 && !(connecting && result == -EINPROGRESS) {
        return Err(Counter::CallFailed);
    }
    let fd = if connecting {
        scratch.arguments.get(0) as i32
    } else {
        result as i32
    };
    let sock = sock_of_fd(fd)?;
    let record = &mut scratch.record;
    let copy = &mut scratch.sock;
    begin(record, call, task.tgid, task.tid, fd);
    record.goroutine = scratch.work.goroutine;
    record.polls = polls_of(task.tid);
    record.result = result as i32;
    if fill_identity(sock, copy, record)? == Transport::Tcp {
        let state = copy.state();
        if state == TCP_SYN_SENT {
            // The peer's number is not known yet; ours is one below the next byte.
            let next: u32 = read(sock, offsets().tcp_write_seq)?;
            record.local_isn = next.wrapping_sub(1);
            record.role = Role::Connector as u8;
        } else if state != TCP_CLOSE {
            // Also when the peer has closed before it was accepted.
            fill_streams(sock, copy, record)?;
        }
    }
    submit_bare(record)
}
