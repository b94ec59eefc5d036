//! Loads and attaches the BPF programs and owns their maps.

use super::btf::{Btf, BtfError};
use super::offsets;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{Program, ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader};
use ebpf_common::{
    Capture as Mode, ConnectionId, Counter, GoLayout, MAX_PAYLOAD, Settings, Target,
};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DEEPTRACE_BPF_OBJECT"));
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// What the kernel puts before each record (`BPF_RINGBUF_HDR_SZ`).
const RECORD_HEADER_BYTES: u64 = 8;

/// Program in the object, raw tracepoint it goes to.
const PROGRAMS: [(&str, &str); 5] = [
    (TCP_STATE, "inet_sock_set_state"),
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
    ("waking", "sched_waking"),
];

const TCP_STATE: &str = "tcp_state";
/// Attached after [`TCP_STATE`] where tasks can be preempted in it.
const TCP_STATE_AGAIN: (&str, &str) = ("tcp_state_again", "inet_sock_set_state");
/// The first kernel on which a task can be preempted in a program on a raw tracepoint.
const FIRST_PREEMPTIBLE: u32 = 7;

/// What the capture is started with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the ring buffer; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Payload bytes captured of a message on a connection not yet judged.
    pub payload_limit: u32,
    /// Unix stream sockets are captured too.
    pub unix_sockets: bool,
    /// Every connect on the host is reported (selection by peer port needs it).
    pub report_connects: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes: 16 << 20,
            payload_limit: MAX_PAYLOAD,
            unix_sockets: false,
            report_connects: false,
        }
    }
}

/// Why the capture cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No type information: no offsets.
    #[error("cannot read {VMLINUX}; Deeptrace needs a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf(#[source] std::io::Error),
    /// Type information without a field that is needed.
    #[error("cannot use {VMLINUX}")]
    Btf(#[from] BtfError),
    /// Not allowed to load BPF programs.
    #[error("not allowed to load BPF programs; run as root or grant CAP_BPF and CAP_PERFMON")]
    NotPermitted(#[source] Box<EbpfError>),
    /// The object or its maps were refused.
    #[error("cannot load the BPF object")]
    Load(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("cannot attach the BPF program {name}")]
    Attach {
        /// The program.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map is not what it should be.
    #[error("cannot use the BPF map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
}

/// The running capture. Dropping it detaches every program.
pub struct Capture {
    records: RingBuf<MapData>,
    /// Bytes read since the ring buffer was last found empty.
    backlog_bytes: u64,
    /// The most of them since somebody asked.
    peak_bytes: u64,
    ring_bytes: u32,
    targets: HashMap<MapData, u32, Target>,
    connections: HashMap<MapData, ConnectionId, Mode>,
    counters: PerCpuArray<MapData, u64>,
    _stages: ProgramArray<MapData>,
    // Last, so that the maps' users are gone before the programs are.
    /// Which program is attached for system calls.
    sys_exit: &'static str,
    programs: Ebpf,
}

/// Counter values per CPU.
pub type Losses = Vec<(Counter, Vec<u64>)>;

impl Capture {
    /// Loads the object with this kernel's offsets and attaches every program.
    pub fn start(options: &Options) -> Result<Self, CaptureError> {
        let vmlinux = std::fs::read(VMLINUX).map_err(CaptureError::NoBtf)?;
        let offsets = offsets::resolve(&Btf::parse(&vmlinux)?)?;
        let table = offsets::syscall_table();
        let ring_bytes = options
            .ring_bytes
            .max(1 << 16)
            .checked_next_power_of_two()
            .unwrap_or(1 << 31);
        let settings = Settings {
            unix_sockets: options.unix_sockets.into(),
            report_connects: options.report_connects.into(),
            default_limit: options.payload_limit.min(MAX_PAYLOAD),
            wakeup_bytes: ring_bytes / 8,
            own_tgid: std::process::id(),
            reserved: 0,
        };
        let cpus = aya::util::nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(1));
        let mut programs = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .override_global("SETTINGS", &settings, true)
            .override_global("SYSCALLS", &table, true)
            .map_max_entries("RECORDS", ring_bytes)
            .map_max_entries("SCRATCH", cpus)
            .load(OBJECT)
            .map_err(load_error)?;
        let mut stages = take(&mut programs, "STAGES", ProgramArray::try_from)?;
        let preemptible = is_preemptible(rustix::system::uname().release());
        let hooks = hook_calls(&mut programs, &mut stages, preemptible)?;
        let again = preemptible.then_some(TCP_STATE_AGAIN);
        for (name, tracepoint) in PROGRAMS.into_iter().chain(again) {
            attach(&mut programs, name, tracepoint)?;
        }
        let records = take(&mut programs, "RECORDS", RingBuf::try_from)?;
        Ok(Self {
            ring_bytes,
            backlog_bytes: 0,
            peak_bytes: 0,
            records,
            targets: take(&mut programs, "TARGETS", HashMap::try_from)?,
            connections: take(&mut programs, "CONNECTIONS", HashMap::try_from)?,
            counters: take(&mut programs, "COUNTERS", PerCpuArray::try_from)?,
            _stages: stages,
            sys_exit: hooks.sys_exit,
            programs,
        })
    }

    /// Hands every waiting record to `each`, at most `budget` of them; gives their number.
    pub fn drain(&mut self, budget: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut drained = 0;
        while drained < budget {
            let Some(record) = self.records.next() else {
                break;
            };
            self.backlog_bytes += RECORD_HEADER_BYTES + record.len() as u64;
            each(&record);
            drained += 1;
        }
        self.peak_bytes = self.peak_bytes.max(self.backlog_bytes);
        if drained < budget {
            self.backlog_bytes = 0;
        }
        drained
    }

    /// Size of the ring buffer.
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes as usize
    }

    /// The most bytes that were read until it was empty, since this was last asked: how full it
    /// has been, and somewhat more while records come as fast as they are read.
    pub fn take_peak_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.peak_bytes)
    }

    /// Waits until the ring buffer is an eighth full, or the time is over.
    pub fn wait(&self, timeout: Duration) {
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let fd = self.records.as_fd();
        let mut fds = [rustix::event::PollFd::new(
            &fd,
            rustix::event::PollFlags::IN,
        )];
        // An interrupted wait is a short wait.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
    }

    /// Starts to trace a process, which runs this Go if it runs one; again with another when it has
    /// become another program.
    pub fn trace(&mut self, tgid: u32, go: GoLayout) -> Result<(), CaptureError> {
        self.targets
            .insert(tgid, Target { traced: 1, go }, 0)
            .map_err(|source| CaptureError::Map {
                name: "TARGETS",
                source: Box::new(source),
            })
    }

    /// Stops to trace a process.
    pub fn untrace(&mut self, tgid: u32) {
        // Not there is as good as removed.
        let _ = self.targets.remove(&tgid);
    }

    /// Sets what is captured of a connection. A connection that is gone is no error.
    pub fn set_mode(&mut self, id: ConnectionId, mode: Mode) {
        // BPF_EXIST (2): do not bring a closed connection back.
        let _ = self.connections.insert(id, mode, 2);
    }

    /// Every counter with its value on each CPU.
    pub fn counters(&self) -> Losses {
        let read = |counter: Counter| {
            let values = self.counters.get(&(counter as u32), 0);
            (
                counter,
                values.map(|values| values.to_vec()).unwrap_or_default(),
            )
        };
        Counter::ALL.into_iter().map(read).collect()
    }

    /// By program, how often the kernel did not run it since it was at work already on that
    /// processor, less what [`Counter::Preempted`] says was done all the same. Kernels tell from
    /// 6.2 on.
    pub fn missed(&self) -> Vec<(&'static str, u64)> {
        let names = PROGRAMS.iter().map(|(name, _)| *name);
        let missed = names.chain([self.sys_exit]).filter_map(|name| {
            let program = self.programs.program(name)?;
            let missed = misses(program.fd().ok()?.as_fd().as_raw_fd())?;
            let done = if name == TCP_STATE {
                self.done_again()
            } else {
                0
            };
            Some((name, missed.saturating_sub(done)))
        });
        missed.collect()
    }

    fn done_again(&self) -> u64 {
        let done = self.counters.get(&(Counter::Preempted as u32), 0);
        done.map_or(0, |values| values.iter().sum())
    }
}

/// The programs for system calls, on one kind of tracepoint.
struct Hooks {
    sys_exit: &'static str,
    /// What `sys_exit` continues in, in the order of `ebpf::maps::Stage`.
    stages: [&'static str; 4],
}

const RAW: Hooks = Hooks {
    sys_exit: "sys_exit",
    stages: [
        "one_message",
        "message_lengths",
        "many_messages",
        "next_message",
    ],
};
const TRACEPOINT: Hooks = Hooks {
    sys_exit: "sys_exit_tracepoint",
    stages: [
        "one_message_tracepoint",
        "message_lengths_tracepoint",
        "many_messages_tracepoint",
        "next_message_tracepoint",
    ],
};

/// Attaches the programs for system calls where none of them is preempted, as cheaply as that goes.
fn hook_calls(
    programs: &mut Ebpf,
    stages: &mut ProgramArray<MapData>,
    preemptible: bool,
) -> Result<&'static Hooks, CaptureError> {
    if preemptible {
        match attach_calls(programs, &TRACEPOINT, stages) {
            Ok(()) => return Ok(&TRACEPOINT),
            Err(error) => tracing::warn!(
                error = pipeline::error_chain(&error),
                "no tracepoint for system calls: this kernel will miss some of them, see \
                 deeptrace_kernel_lost; mount tracefs at /sys/kernel/tracing"
            ),
        }
    }
    attach_calls(programs, &RAW, stages).map(|()| &RAW)
}

fn attach_calls(
    programs: &mut Ebpf,
    hooks: &'static Hooks,
    stages: &mut ProgramArray<MapData>,
) -> Result<(), CaptureError> {
    for (index, name) in (0..).zip(hooks.stages) {
        let program = load(programs, name).map_err(|source| attach_error(name, source))?;
        let fd = program.fd().map_err(|source| attach_error(name, source))?;
        stages
            .set(index, fd, 0)
            .map_err(|source| CaptureError::Map {
                name: "STAGES",
                source: Box::new(source),
            })?;
    }
    let attached = load(programs, hooks.sys_exit).and_then(|program| match program {
        Program::TracePoint(program) => program.attach("raw_syscalls", "sys_exit").map(drop),
        Program::RawTracePoint(program) => program.attach("sys_exit").map(drop),
        _ => Err(ProgramError::UnexpectedProgramType),
    });
    attached.map_err(|source| attach_error(hooks.sys_exit, source))
}

fn load<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    let program = programs.program_mut(name).ok_or(ProgramError::NotLoaded)?;
    match program {
        Program::TracePoint(program) => program.load()?,
        Program::RawTracePoint(program) => program.load()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(program)
}

/// Whether a task can be preempted in a program on a raw tracepoint.
fn is_preemptible(release: &CStr) -> bool {
    let release = release.to_string_lossy();
    let major = release
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    major.is_none_or(|major: u32| major >= FIRST_PREEMPTIBLE)
}

/// `recursion_misses` of a loaded program.
fn misses(program: RawFd) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{program}")).ok()?;
    let mut lines = info.lines();
    let misses = lines.find_map(|line| line.strip_prefix("recursion_misses:"))?;
    misses.trim().parse().ok()
}

fn attach(programs: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<(), CaptureError> {
    let attached = load(programs, name).and_then(|program| {
        let program: &mut RawTracePoint = program.try_into()?;
        program.attach(tracepoint)
    });
    attached
        .map(drop)
        .map_err(|source| attach_error(name, source))
}

fn take<T>(
    programs: &mut Ebpf,
    name: &'static str,
    open: impl Fn(aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, CaptureError> {
    let missing = || MapError::InvalidName {
        name: name.to_owned(),
    };
    let map = programs.take_map(name).ok_or_else(missing);
    map.and_then(open).map_err(|source| CaptureError::Map {
        name,
        source: Box::new(source),
    })
}

pub(super) fn load_error(error: EbpfError) -> CaptureError {
    if is_forbidden(&error) {
        return CaptureError::NotPermitted(Box::new(error));
    }
    CaptureError::Load(Box::new(error))
}

fn attach_error(name: &'static str, source: ProgramError) -> CaptureError {
    if is_forbidden(&source) {
        return CaptureError::NotPermitted(Box::new(source.into()));
    }
    CaptureError::Attach {
        name,
        source: Box::new(source),
    }
}

/// EPERM: a capability is missing. EACCES is not asked for, since the verifier says that too.
fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.raw_os_error() == Some(libc::EPERM)) {
            return true;
        }
        next = cause.source();
    }
    false
}
