//! Which processes are looked at.

use crate::maps::TARGETS;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use ebpf_common::{Counter, Target};

/// The current task, if its process is traced.
pub struct Task {
    pub tgid: u32,
    pub tid: u32,
    pub target: &'static Target,
}

#[inline(always)]
pub fn traced_task() -> Result<Task, Counter> {
    let ids = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((ids >> 32) as u32, ids as u32);
    let target = TARGETS.get_ptr(tgid).ok_or(Counter::NotSelected)?;
    // SAFETY: a live map entry; fields of one that changes meanwhile are offsets of either program.
    let target = unsafe { &*target };
    Ok(Task { tgid, tid, target })
}
