//! Empty programs on the hooks that were candidates: what `make bench` compares with.

use super::loader::{CaptureError, OBJECT, load_error};
use aya::programs::{ProgramError, RawTracePoint, TracePoint};
use aya::{Ebpf, EbpfLoader};

/// A place where an empty program can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A raw tracepoint, `sys_enter` or `sys_exit`: every system call of the host.
    Raw(&'static str),
    /// A tracepoint of `syscalls`, such as `sys_exit_write`: one system call. Needs tracefs.
    Tracepoint(&'static str),
}

/// Attached empty programs; dropping them detaches.
pub struct Floor {
    _programs: Ebpf,
}

impl Floor {
    /// Attaches an empty program to each hook.
    pub fn attach(hooks: &[Hook]) -> Result<Self, CaptureError> {
        let mut programs = EbpfLoader::new()
            .map_max_entries("RECORDS", 1 << 16)
            .load(OBJECT)
            .map_err(load_error)?;
        let (mut raw_loaded, mut tracepoint_loaded) = (false, false);
        for hook in hooks {
            let (name, result) = match hook {
                Hook::Raw(tracepoint) => {
                    let load = !std::mem::replace(&mut raw_loaded, true);
                    ("empty_raw", attach_raw(&mut programs, tracepoint, load))
                }
                Hook::Tracepoint(tracepoint) => {
                    let load = !std::mem::replace(&mut tracepoint_loaded, true);
                    (
                        "empty_tracepoint",
                        attach_tracepoint(&mut programs, tracepoint, load),
                    )
                }
            };
            result.map_err(|source| CaptureError::Attach {
                name,
                source: Box::new(source),
            })?;
        }
        Ok(Self {
            _programs: programs,
        })
    }
}

fn attach_raw(programs: &mut Ebpf, tracepoint: &str, load: bool) -> Result<(), ProgramError> {
    let program = programs
        .program_mut("empty_raw")
        .ok_or(ProgramError::NotLoaded)?;
    let program: &mut RawTracePoint = program.try_into()?;
    if load {
        program.load()?;
    }
    program.attach(tracepoint).map(drop)
}

fn attach_tracepoint(programs: &mut Ebpf, name: &str, load: bool) -> Result<(), ProgramError> {
    let program = programs
        .program_mut("empty_tracepoint")
        .ok_or(ProgramError::NotLoaded)?;
    let program: &mut TracePoint = program.try_into()?;
    if load {
        program.load()?;
    }
    program.attach("syscalls", name).map(drop)
}
