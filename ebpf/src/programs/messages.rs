//! The stages after `sys_exit`: find the place of the call's messages in the
//! stream and submit them.

use crate::emit::{begin, scratch, submit};
use crate::iov::{Buffer, MultiMessageHeader, fill_peer, read_user};
use crate::maps::{Messages, STAGES, Scratch, Stage, Work, count};
use crate::programs::waking::take_wake;
use crate::sock::{Transport, fill_identity, fill_streams, fill_unix_positions};
use crate::task::sock_of_fd;
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{raw_tracepoint, tracepoint};
use aya_ebpf::programs::{RawTracePointContext, TracePointContext};
use ebpf_common::{Counter, Flags, MAX_MESSAGES, MAX_PAYLOAD};

const MSG_TRUNC: u32 = 0x20;
/// The kernel's own limit of messages in one call (`UIO_MAXIOV`).
const MAX_LENGTHS: u64 = 1024;
const MMSGHDR_BYTES: u64 = size_of::<MultiMessageHeader>() as u64;
const MSG_LEN_OFFSET: u64 = core::mem::offset_of!(MultiMessageHeader, len) as u64;

/// The stages as programs of one kind: none can be of two, as `sys_exit` is.
macro_rules! stages {
    ($hook:ident, $context:ty, $end:ty, $one:ident, $lengths:ident, $many:ident, $next:ident) => {
        /// Every call but the mmsg ones: one message.
        #[$hook]
        pub fn $one(ctx: $context) -> $end {
            run(&ctx, |scratch| try_message(scratch).map(|()| None));
            0
        }

        /// recvmmsg, sendmmsg: how far the call moved the stream, of which the return value says
        /// nothing.
        #[$hook]
        pub fn $lengths(ctx: $context) -> $end {
            run(&ctx, |scratch| {
                add_lengths(&mut scratch.work).map(|()| Some(Stage::Messages))
            });
            0
        }

        /// recvmmsg, sendmmsg: finds the socket; the last stage does one message after the other.
        #[$hook]
        pub fn $many(ctx: $context) -> $end {
            run(&ctx, |scratch| {
                try_messages(scratch).map(|()| Some(Stage::NextMessage))
            });
            0
        }

        /// One message of a recvmmsg or sendmmsg, then itself again for the next:
        /// `MAX_MESSAGES` is below the kernel's limit of 33 tail calls.
        #[$hook]
        pub fn $next(ctx: $context) -> $end {
            run(&ctx, |scratch| {
                try_next(scratch).map(|more| more.then_some(Stage::NextMessage))
            });
            0
        }
    };
}

stages!(
    raw_tracepoint,
    RawTracePointContext,
    i32,
    one_message,
    message_lengths,
    many_messages,
    next_message
);
stages!(
    tracepoint,
    TracePointContext,
    u32,
    one_message_tracepoint,
    message_lengths_tracepoint,
    many_messages_tracepoint,
    next_message_tracepoint
);

#[inline(always)]
fn run(ctx: &impl EbpfContext, stage: impl FnOnce(&mut Scratch) -> Result<Option<Stage>, Counter>) {
    let next = scratch().and_then(stage);
    if let Err(counter) = next.and_then(|next| go_on(ctx, next)) {
        count(counter);
    }
}

/// Goes on with the call in its next stage, if there is one.
#[inline(always)]
pub fn go_on(ctx: &impl EbpfContext, next: Option<Stage>) -> Result<(), Counter> {
    let Some(stage) = next else { return Ok(()) };
    // SAFETY: the loader fills the array with programs of this type. Does not return.
    unsafe { STAGES.tail_call(ctx, stage as u32) };
    Err(Counter::NoStage)
}

#[inline(always)]
fn try_message(scratch: &mut Scratch) -> Result<(), Counter> {
    let moved = scratch.work.moved;
    open(scratch, moved)?;
    let end = scratch.record.offset;
    scratch.record.total_len = moved as u32;
    if scratch.work.transport == Transport::Udp as u32 {
        fill_peer(scratch.work.peer, &mut scratch.record);
        if scratch.work.cut != 0 {
            scratch.record.flags |= Flags::DATAGRAM_CUT;
        }
    } else {
        scratch.record.offset = end.wrapping_sub(moved);
        if moved == 0 {
            end_of_stream(scratch)?;
        }
        discard(scratch);
    }
    if scratch.work.buffer.is_unseen() && moved != 0 {
        scratch.record.flags |= Flags::UNSEEN;
    }
    skip_unwanted(scratch, end);
    submit(scratch)
}

/// Nothing came of a stream, though there was room for it: the peer sends no more.
#[inline(always)]
fn end_of_stream(scratch: &mut Scratch) -> Result<(), Counter> {
    if scratch.work.writing != 0 || !scratch.work.buffer.has_room() {
        return Err(Counter::CallFailed);
    }
    scratch.record.flags |= Flags::END;
    Ok(())
}

/// TCP with MSG_TRUNC throws the bytes away instead of copying them.
#[inline(always)]
fn discard(scratch: &mut Scratch) {
    if scratch.work.discarded != 0 && scratch.work.transport == Transport::Tcp as u32 {
        scratch.work.buffer = Buffer::UNSEEN;
    }
}

#[inline(always)]
fn try_messages(scratch: &mut Scratch) -> Result<(), Counter> {
    let messages = scratch.work.moved;
    let total = scratch.work.total;
    open(scratch, total)?;
    if messages > u64::from(MAX_MESSAGES) {
        count(Counter::TooManyMessages);
    }
    if scratch.work.transport != Transport::Udp as u32 {
        scratch.record.offset = scratch.record.offset.wrapping_sub(total);
    }
    let work = &mut scratch.work;
    work.messages = Messages {
        array: work.buffer.address,
        left: messages.min(u64::from(MAX_MESSAGES)) as u32,
        limit: work.limit,
        flags: scratch.record.flags,
        remote_port: scratch.record.remote_port,
        reserved: 0,
        remote_addr: scratch.record.remote_addr,
    };
    Ok(())
}

/// True: another message follows.
#[inline(always)]
fn try_next(scratch: &mut Scratch) -> Result<bool, Counter> {
    let messages = scratch.work.messages;
    if messages.left == 0 {
        return Ok(false);
    }
    let entry: MultiMessageHeader = read_user(messages.array)?;
    scratch.work.messages.array = messages.array + MMSGHDR_BYTES;
    scratch.work.messages.left = messages.left - 1;
    scratch.work.limit = messages.limit;
    scratch.work.buffer = Buffer::scattered(entry.header.iov, entry.header.iov_len);
    let record = &mut scratch.record;
    record.flags = messages.flags;
    record.remote_port = messages.remote_port;
    record.remote_addr = messages.remote_addr;
    record.total_len = entry.len;
    if scratch.work.transport == Transport::Udp as u32 {
        fill_peer(entry.header.name, record);
        if entry.header.flags & MSG_TRUNC != 0 && scratch.work.writing == 0 {
            record.flags |= Flags::DATAGRAM_CUT;
        }
        return submit(scratch).map(|()| true);
    }
    if entry.len == 0 && end_of_stream(scratch).is_err() {
        return Ok(true);
    }
    discard(scratch);
    if scratch.work.buffer.is_unseen() && entry.len != 0 {
        scratch.record.flags |= Flags::UNSEEN;
    }
    let end = scratch.record.offset + u64::from(entry.len);
    skip_unwanted(scratch, end);
    submit(scratch)?;
    scratch.record.offset = end;
    Ok(true)
}

/// Of all messages, also of those beyond `MAX_MESSAGES`: the stream moved by them too.
///
/// The sum grows in the map and not in a register, so that the verifier sees the same
/// state after every turn.
#[inline(always)]
fn add_lengths(work: &mut Work) -> Result<(), Counter> {
    let (array, messages) = (work.buffer.address, work.moved);
    let total = &raw mut work.total;
    // SAFETY: a field of the live map entry that `work` is.
    unsafe { total.write_volatile(0) };
    let mut index = 0;
    while index < MAX_LENGTHS && index < messages {
        let len: u32 = read_user(array + index * MMSGHDR_BYTES + MSG_LEN_OFFSET)?;
        // SAFETY: as above.
        unsafe { total.write_volatile(total.read_volatile() + u64::from(len)) };
        index += 1;
    }
    Ok(())
}

/// No payload for a message that ends in a part of the stream that nobody wants.
#[inline(always)]
fn skip_unwanted(scratch: &mut Scratch, end: u64) {
    let unwanted = end <= scratch.work.skip_until && scratch.record.total_len != 0;
    if unwanted && scratch.work.transport == Transport::Tcp as u32 {
        scratch.record.flags |= Flags::SKIPPED;
        scratch.work.limit = 0;
    }
}

/// Starts the record: the socket, where its streams stand after the call, and
/// what is wanted of it.
#[inline(always)]
fn open(scratch: &mut Scratch, moved: u64) -> Result<(), Counter> {
    let sock = sock_of_fd(scratch.work.fd)?;
    let work = &mut scratch.work;
    let record = &mut scratch.record;
    begin(record, work.call as u8, work.tgid, work.tid, work.fd);
    take_wake(record, work.tid);
    record.goroutine = work.goroutine;
    if work.writing != 0 {
        record.flags |= Flags::WRITE;
    }
    let copy = &mut scratch.sock;
    let transport = fill_identity(sock, copy, record)?;
    work.transport = transport as u32;
    work.limit = MAX_PAYLOAD;
    work.skip_until = 0;
    if transport == Transport::Tcp {
        let capture = fill_streams(sock, copy, record)?;
        if capture.off != 0 {
            return Err(Counter::SwitchedOff);
        }
        (work.limit, work.skip_until) = if work.writing != 0 {
            (capture.write_limit, capture.write_skip_until)
        } else {
            (capture.read_limit, capture.read_skip_until)
        };
    } else if transport == Transport::Unix {
        fill_unix_positions(sock, moved, record);
    }
    if work.writing == 0 {
        core::mem::swap(&mut record.offset, &mut record.other_offset);
    }
    Ok(())
}
