//! Which processes are looked at.

use crate::maps::TARGETS;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use ebpf_common::Counter;

/// The current task, if its process is traced.
#[inline(always)]
pub fn traced_task() -> Result<(u32, u32), Counter> {
    let ids = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((ids >> 32) as u32, ids as u32);
    if TARGETS.get_ptr(tgid).is_none() {
        return Err(Counter::NotSelected);
    }
    Ok((tgid, tid))
}
