//! The `ebpf` receiver: one thread that reads the ring buffer and makes spans.

mod reconfigure;

use crate::capture::{Capture, CaptureError, Event, GoLayout, Options, ProcessEvent, decode, go};
use crate::clock::{MonotonicNs, WallClock, now_monotonic};
use crate::discovery::{
    Change, HostFacts, Limits, Pid, Proc, Runtime, Select, SelectSchema, Selector, Table, Users,
};
use crate::metrics::Totals;
use crate::spans::{Output, Process, Surroundings, Tracker, TrackerLimits};
use pipeline::component::{
    BoxError, Check, Context, Receiver, ReceiverSettings, Reconfigure, Settings,
};
use pipeline::telemetry::{Loss, Losses, Metrics};
use pipeline::{Batch, BatchSender, Running, otlp};
use reconfigure::{Change as SettingsChange, Wanted};
use schemars::JsonSchema;
use serde::Deserialize;
use span_model::ProcessKey;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Longest sleep between two looks at the ring buffer.
const POLL: Duration = Duration::from_millis(10);
/// Records handled between two looks at the clock.
const DRAIN_BUDGET: usize = 4096;
/// Bytes that a record takes in the ring buffer at least.
const SMALLEST_RECORD: usize = 128;
/// Spans after which a batch goes on.
const BATCH_SPANS: usize = 1024;
/// Age at which a smaller batch goes on.
const BATCH_AGE_NS: u64 = 50_000_000;
/// How often processes, idle connections and the clock are looked after.
const CHORES_NS: u64 = 1_000_000_000;

/// Settings of the `ebpf` receiver.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EbpfSettings {
    /// Which processes are traced: ordered rules, the first that matches decides.
    #[schemars(with = "SelectSchema")]
    pub select: Select,
    /// MiB of memory between kernel and collector.
    pub ring_buffer_mib: u32,
    /// Payload bytes taken of one message at most.
    pub payload_bytes: u32,
    /// Unix stream sockets are traced too.
    pub unix_sockets: bool,
    /// Connections followed at a time.
    pub max_connections: usize,
    /// MiB of unread bytes that all connections may hold together.
    pub max_buffered_mib: usize,
    /// `host.id` of everything traced; empty: the machine's own, which clones of one image share.
    pub host_id: String,
    /// `host.name` of everything traced; empty: the machine's own.
    pub host_name: String,
}

impl Default for EbpfSettings {
    fn default() -> Self {
        let limits = TrackerLimits::default();
        Self {
            select: Select::default(),
            ring_buffer_mib: 16,
            payload_bytes: ebpf_common::MAX_PAYLOAD,
            unix_sockets: false,
            max_connections: limits.connections,
            max_buffered_mib: limits.buffered_bytes >> 20,
            host_id: String::new(),
            host_name: String::new(),
        }
    }
}

impl Settings for EbpfSettings {
    fn check(&self, check: &mut Check<'_>) {
        if !(1..=1024).contains(&self.ring_buffer_mib) || !self.ring_buffer_mib.is_power_of_two() {
            check.error("ring_buffer_mib", "must be a power of two from 1 to 1024");
        }
        if !(256..=ebpf_common::MAX_PAYLOAD).contains(&self.payload_bytes) {
            let range = format!("must be from 256 to {}", ebpf_common::MAX_PAYLOAD);
            check.error("payload_bytes", range);
        }
        if self.max_connections == 0 {
            check.error("max_connections", "must be above 0");
        }
        if self.max_buffered_mib == 0 {
            check.error("max_buffered_mib", "must be above 0");
        }
        if let Err(error) = Selector::new(self.select.clone(), own_pid()) {
            let error = pipeline::error_chain(&error);
            check.error("select", format!("cannot be used: {error}"));
        }
    }
}

impl EbpfSettings {
    /// What the running host says of itself, unless the settings say otherwise.
    fn host(&self) -> HostFacts {
        let mut host = HostFacts::probe();
        for (own, set) in [
            (&mut host.id, &self.host_id),
            (&mut host.name, &self.host_name),
        ] {
            if !set.is_empty() {
                own.clone_from(set);
            }
        }
        host
    }
}

impl ReceiverSettings for EbpfSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Receiver>, BoxError> {
        Ok(Box::new(EbpfReceiver {
            settings: self.clone(),
            losses: Losses::new(&context.metrics, &format!("receivers/{}", context.id)),
            metrics: context.metrics,
            wanted: Wanted::default(),
        }))
    }
}

struct EbpfReceiver {
    settings: EbpfSettings,
    losses: Losses,
    metrics: Metrics,
    wanted: Wanted,
}

impl Receiver for EbpfReceiver {
    fn start(
        self: Box<Self>,
        output: BatchSender,
        stop: CancellationToken,
    ) -> Result<Running, BoxError> {
        let mut worker = Worker::start(&self.settings, &self.metrics, self.losses.clone(), output)?;
        let (ended, running) = oneshot::channel();
        let thread = std::thread::Builder::new().name("deeptrace-ebpf".to_owned());
        thread.spawn(move || {
            worker.run(&stop, &self.wanted);
            // The service may be gone already; then nobody waits.
            let _ = ended.send(());
        })?;
        Ok(Box::pin(async move {
            running
                .await
                .map_err(|_| BoxError::from("the thread that reads the kernel has panicked"))
        }))
    }

    fn reconfigure(&self) -> Option<Box<dyn Reconfigure>> {
        let change = SettingsChange::new(&self.settings, self.wanted.clone());
        Some(Box::new(change))
    }
}

/// Everything that the thread owns.
struct Worker {
    capture: Capture,
    tracker: Tracker,
    world: World,
    out: Output,
    oldest_ns: Option<u64>,
    chores_ns: u64,
    /// Time of the last record.
    latest_ns: u64,
    undecodable: u64,
    /// Records that there was no time to look at before the end.
    unread: u64,
    output: BatchSender,
    losses: Losses,
    totals: Totals,
}

impl Worker {
    fn start(
        settings: &EbpfSettings,
        metrics: &Metrics,
        losses: Losses,
        output: BatchSender,
    ) -> Result<Self, BoxError> {
        let selector = Selector::new(settings.select.clone(), own_pid())?;
        let capture = Capture::start(&Options {
            ring_bytes: settings.ring_buffer_mib << 20,
            payload_limit: settings.payload_bytes,
            unix_sockets: settings.unix_sockets,
            report_connects: selector.needs().peer_ports,
        })?;
        let host = settings.host();
        let host_id = host.id.clone();
        let proc = Proc::open("/proc")?;
        let table = Table::new(proc, selector, host, Users::probe(), Limits::default());
        let limits = TrackerLimits {
            connections: settings.max_connections,
            buffered_bytes: settings.max_buffered_mib << 20,
            ..TrackerLimits::default()
        };
        let mut worker = Self {
            capture,
            tracker: Tracker::new(limits),
            world: World {
                table,
                clock: WallClock::start(),
                host_id,
            },
            out: Output::default(),
            oldest_ns: None,
            chores_ns: now_monotonic().0,
            latest_ns: 0,
            undecodable: 0,
            unread: 0,
            output,
            losses,
            totals: Totals::new(metrics),
        };
        worker.scan()?;
        let denied = worker.world.table.counts().denied;
        if denied > 0 {
            tracing::warn!(
                processes = denied,
                "may not look into some processes, rules with listen_port or peer_port pass them \
                 over: add CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
            );
        }
        let traced = worker.world.table.traced().count();
        tracing::info!(processes = traced, "ready: watching network system calls");
        Ok(worker)
    }

    fn run(&mut self, stop: &CancellationToken, wanted: &Wanted) {
        while !stop.is_cancelled() {
            if let Some(settings) = wanted.take() {
                self.take_over(settings);
            }
            let drained = self.drain();
            self.look_after(drained < DRAIN_BUDGET);
            if drained < DRAIN_BUDGET {
                self.capture.wait(POLL);
            }
        }
        self.finish();
        self.tracker.shutdown(&mut self.world, &mut self.out);
        self.apply_modes();
        self.send();
        self.count();
    }

    /// What was captured before the stop still becomes spans, until the service gives up waiting.
    /// Programs go on being captured meanwhile: what fits into the ring buffer is enough.
    fn finish(&mut self) {
        for _ in 0..=self.capture.ring_bytes() / SMALLEST_RECORD / DRAIN_BUDGET {
            if self.output.is_closed() {
                self.unread += self.capture.drain(DRAIN_BUDGET, |_| {}) as u64;
            } else if self.drain() == 0 {
                break;
            } else {
                self.look_after(false);
            }
        }
    }

    /// Settings that need no restart of the capture.
    fn take_over(&mut self, settings: EbpfSettings) {
        self.tracker
            .set_limits(settings.max_connections, settings.max_buffered_mib << 20);
        let now = now_monotonic();
        let changes = Selector::new(settings.select, own_pid())
            .and_then(|selector| self.world.table.reselect(selector, now));
        match changes {
            Ok(changes) => self.apply(changes),
            Err(error) => tracing::error!(%error, "cannot select processes anew"),
        }
    }

    fn drain(&mut self) -> usize {
        let Self {
            capture,
            tracker,
            world,
            out,
            undecodable,
            latest_ns,
            ..
        } = self;
        let mut changes = Vec::new();
        let drained = capture.drain(DRAIN_BUDGET, |record| match decode(record) {
            Ok(Event::Socket(event)) => {
                *latest_ns = event.exit_ns;
                tracker.handle(&event, world, out);
            }
            Ok(Event::Process { event, tgid, other }) => {
                changes.extend(world.process_event(event, tgid, other));
            }
            Err(_) => *undecodable += 1,
        });
        self.apply(changes);
        self.apply_modes();
        drained
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Trace(traced) => {
                    let go = match traced.runtime {
                        Runtime::Go(version) => go::layout(version.minor),
                        _ => GoLayout::default(),
                    };
                    if let Err(error) = self.capture.trace(traced.pid.0, go) {
                        warn_untraced(traced.pid, &error);
                    }
                }
                Change::Untrace { pid } => self.capture.untrace(pid.0),
            }
        }
    }

    fn apply_modes(&mut self) {
        for (id, mode) in self.out.modes.drain(..) {
            self.capture.set_mode(id, mode);
        }
    }

    fn scan(&mut self) -> Result<(), BoxError> {
        let changes = self.world.table.scan(now_monotonic())?;
        self.apply(changes);
        Ok(())
    }

    /// `up_to_date`: no record was left in the ring buffer.
    fn look_after(&mut self, up_to_date: bool) {
        let now = now_monotonic().0;
        if now.saturating_sub(self.chores_ns) >= CHORES_NS {
            self.chores_ns = now;
            self.world.clock.resample();
            if let Err(error) = self.scan() {
                tracing::warn!(%error, "cannot look for new processes");
            }
            self.tracker.sweep(now, &mut self.world, &mut self.out);
            self.count();
        }
        // What a piece waits for may lie in the ring buffer still, however late we are.
        let seen_ns = if up_to_date { now } else { self.latest_ns };
        self.tracker.tick(seen_ns, &mut self.world, &mut self.out);
        let waiting = self.out.spans.len() + self.out.openings.len();
        let oldest = *self.oldest_ns.get_or_insert(now);
        if waiting == 0 {
            self.oldest_ns = None;
        } else if waiting >= BATCH_SPANS || now.saturating_sub(oldest) >= BATCH_AGE_NS {
            self.send();
        }
    }

    fn send(&mut self) {
        self.oldest_ns = None;
        let spans = std::mem::take(&mut self.out.spans);
        let openings = std::mem::take(&mut self.out.openings);
        let mut batch = Batch::new(otlp::encode(spans, VERSION));
        batch.openings = openings;
        let spans = batch.span_count();
        if !batch.is_empty() && self.output.blocking_send(batch).is_err() {
            self.losses.count(Loss::Shutdown, spans);
        }
    }

    fn count(&mut self) {
        self.totals.kernel(&self.capture.counters());
        self.totals
            .ring(self.capture.take_peak_bytes(), self.capture.ring_bytes());
        self.totals.tracker(&self.tracker);
        self.totals
            .discovery(self.world.table.counts(), self.world.table.traced().count());
        self.totals.records(self.undecodable, self.unread);
        self.totals.missed(&self.capture.missed());
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the tracker asks of the world: names and times.
struct World {
    table: Table,
    clock: WallClock,
    host_id: String,
}

impl World {
    /// Learns of it before the next record is looked at, which may need the process's name.
    fn process_event(&mut self, event: ProcessEvent, tgid: u32, other: u32) -> Vec<Change> {
        let now = now_monotonic();
        let port = u16::try_from(other).unwrap_or(0);
        match event {
            ProcessEvent::Fork => self.table.on_fork(Pid(tgid), Pid(other), now),
            ProcessEvent::Exec => self.table.on_exec(Pid(tgid), now),
            ProcessEvent::Exit => self.table.on_exit(Pid(tgid), now),
            ProcessEvent::Listen => self.table.on_listen(Pid(tgid), port, now),
            ProcessEvent::Connect => self.table.on_connect(Pid(tgid), port, now),
        }
    }
}

impl Surroundings for World {
    fn process(&mut self, tgid: u32, monotonic_ns: u64) -> Option<Process> {
        let traced = self.table.at(Pid(tgid), MonotonicNs(monotonic_ns))?;
        Some(Process {
            resource: traced.resource.clone(),
            key: ProcessKey::new(&self.host_id, i64::from(tgid)),
        })
    }

    fn unix_ns(&self, monotonic_ns: u64) -> u64 {
        self.clock.offset().to_unix(MonotonicNs(monotonic_ns)).0
    }
}

fn own_pid() -> Pid {
    Pid(std::process::id())
}

fn warn_untraced(pid: Pid, error: &CaptureError) {
    tracing::warn!(pid = pid.0, %error, "cannot trace a process");
}
