//! Programs that do nothing: what a hook costs before it does any work. Only
//! `make bench` attaches them.

use aya_ebpf::macros::{raw_tracepoint, tracepoint};
use aya_ebpf::programs::{RawTracePointContext, TracePointContext};

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn empty_raw(_ctx: RawTracePointContext) -> i32 {
    0
}

#[tracepoint]
pub fn empty_tracepoint(_ctx: TracePointContext) -> u32 {
    0
}
