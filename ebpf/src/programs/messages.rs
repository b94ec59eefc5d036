//! The stages after `sys_exit`: find the place of the call's messages in the
//! stream and submit them.

use crate::emit::{begin, scratch, submit};
use crate::iov::{Buffer, MultiMessageHeader, fill_peer, read_user};
use crate::maps::{Messages, STAGES, Scratch, Stage, count};
use crate::sock::{Transport, fill_identity, fill_streams, fill_unix_positions};
use crate::task::sock_of_fd;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use ebpf_common::{Counter, Flags, MAX_MESSAGES, MAX_PAYLOAD};

const MSG_TRUNC: u32 = 0x20;
const MMSGHDR_BYTES: u64 = size_of::<MultiMessageHeader>() as u64;

/// Every call but the mmsg ones: one message.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn one_message(_ctx: RawTracePointContext) -> i32 {
    if let Err(counter) = scratch().and_then(try_message) {
        count(counter);
    }
    0
}

/// recvmmsg, sendmmsg: finds the socket; [`next_message`] does one message after the other.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn many_messages(ctx: RawTracePointContext) -> i32 {
    if let Err(counter) = scratch().and_then(try_messages) {
        count(counter);
        return 0;
    }
    // SAFETY: the loader fills the array with programs of this type. Does not return.
    unsafe { STAGES.tail_call(&ctx, Stage::NextMessage as u32) };
    count(Counter::NoStage);
    0
}

/// One message of a recvmmsg or sendmmsg, then itself again for the next.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn next_message(ctx: RawTracePointContext) -> i32 {
    match scratch().and_then(try_next) {
        Ok(false) => return 0,
        Ok(true) => {}
        Err(counter) => {
            count(counter);
            return 0;
        }
    }
    // SAFETY: as above; `MAX_MESSAGES` is below the kernel's limit of 33 tail calls.
    unsafe { STAGES.tail_call(&ctx, Stage::NextMessage as u32) };
    count(Counter::NoStage);
    0
}

#[inline(always)]
fn try_message(scratch: &mut Scratch) -> Result<(), Counter> {
    let moved = scratch.work.moved;
    open(scratch, moved)?;
    let end = scratch.record.offset;
    scratch.record.total_len = moved as u32;
    scratch.record.offset = end.wrapping_sub(moved);
    let datagram = scratch.work.transport == Transport::Udp as u32;
    if datagram {
        fill_peer(scratch.work.peer, &mut scratch.record);
    }
    if scratch.work.truncated != 0 {
        if datagram {
            scratch.record.flags |= Flags::DATAGRAM_CUT;
        } else {
            // TCP with MSG_TRUNC throws the bytes away instead of copying them.
            scratch.work.buffer = Buffer::UNSEEN;
        }
    }
    if scratch.work.buffer.is_unseen() {
        scratch.record.flags |= Flags::UNSEEN;
    }
    if moved == 0 && !datagram {
        if scratch.work.writing != 0 {
            return Err(Counter::CallFailed);
        }
        scratch.record.flags |= Flags::END;
    }
    skip_unwanted(scratch, end);
    submit(scratch)
}

#[inline(always)]
fn try_messages(scratch: &mut Scratch) -> Result<(), Counter> {
    let messages = scratch.work.moved;
    let total = total_len(scratch.work.buffer.address, messages)?;
    open(scratch, total)?;
    if messages > u64::from(MAX_MESSAGES) {
        count(Counter::TooManyMessages);
        if scratch.work.transport != Transport::Udp as u32 {
            // Without every length the stream position of none is known.
            scratch.record.flags |= Flags::UNSTABLE;
        }
    }
    scratch.record.offset = scratch.record.offset.wrapping_sub(total);
    let work = &mut scratch.work;
    work.messages = Messages {
        array: work.buffer.address,
        left: messages.min(u64::from(MAX_MESSAGES)) as u32,
        limit: work.limit,
        flags: scratch.record.flags,
        remote_port: scratch.record.remote_port,
        reserved: 0,
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
    record.total_len = entry.len;
    if scratch.work.transport == Transport::Udp as u32 {
        fill_peer(entry.header.name, record);
        if entry.header.flags & MSG_TRUNC != 0 && scratch.work.writing == 0 {
            record.flags |= Flags::DATAGRAM_CUT;
        }
    } else if entry.len == 0 {
        record.flags |= Flags::END;
    }
    let end = record.offset + u64::from(entry.len);
    skip_unwanted(scratch, end);
    submit(scratch)?;
    scratch.record.offset = end;
    Ok(true)
}

#[inline(always)]
fn total_len(array: u64, messages: u64) -> Result<u64, Counter> {
    let mut total = 0u64;
    let mut index = 0;
    while index < u64::from(MAX_MESSAGES) && index < messages {
        let entry: MultiMessageHeader = read_user(array + index * MMSGHDR_BYTES)?;
        total += u64::from(entry.len);
        index += 1;
    }
    Ok(total)
}

/// No payload for a message that ends in a part of the stream that nobody wants.
#[inline(always)]
fn skip_unwanted(scratch: &mut Scratch, end: u64) {
    if scratch.work.transport == Transport::Tcp as u32 && end <= scratch.work.skip_until {
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
    if work.writing != 0 {
        record.flags |= Flags::WRITE;
    }
    let transport = fill_identity(sock, record)?;
    work.transport = transport as u32;
    work.limit = MAX_PAYLOAD;
    work.skip_until = 0;
    if transport == Transport::Tcp {
        let capture = fill_streams(sock, record)?;
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
