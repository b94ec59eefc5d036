//! The collector's own counters as metrics: what was captured, and what was lost and why.

use crate::capture::Losses;
use crate::discovery::Counts as Discovery;
use crate::spans::Tracker;
use pipeline::telemetry::{Counter, Metrics};
use std::collections::HashMap;

/// Totals that rooms count themselves, told to the registry as they grow.
pub struct Totals {
    metrics: Metrics,
    told: HashMap<String, (Counter, u64)>,
}

impl Totals {
    /// Nothing told yet.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            told: HashMap::new(),
        }
    }

    /// The kernel side's counters, by reason and CPU.
    pub fn kernel(&mut self, losses: &Losses) {
        for (counter, per_cpu) in losses {
            for (cpu, value) in per_cpu.iter().enumerate() {
                let cpu = cpu.to_string();
                let reason = counter.as_str();
                if reason == "submitted" {
                    let help = "Records that the kernel side put into the ring buffer.";
                    self.total("deeptrace_kernel_records", help, &[("cpu", &cpu)], *value);
                } else if counter.is_loss() {
                    self.kernel_lost(&[("reason", reason), ("cpu", &cpu)], *value);
                } else {
                    let help = "System calls that the kernel side passed over, with nothing lost.";
                    let labels = [("reason", reason), ("cpu", &cpu)];
                    self.total("deeptrace_kernel_passed", help, &labels, *value);
                }
            }
        }
    }

    /// Runs of BPF programs that the kernel left out: it does not tell on which CPU.
    pub fn missed(&mut self, programs: &[(&str, u64)]) {
        for (program, runs) in programs {
            self.kernel_lost(&[("reason", "missed"), ("program", program)], *runs);
        }
    }

    fn kernel_lost(&mut self, labels: &[(&str, &str)], count: u64) {
        let help = "Records that the kernel side lost, wholly or in part.";
        self.total("deeptrace_kernel_lost", help, labels, count);
    }

    /// How full the ring buffer has been.
    pub fn ring(&self, peak_bytes: u64, capacity: usize) {
        let help = "Most bytes of records that waited at once since the last look, a second ago.";
        let gauge = self.metrics.gauge("deeptrace_ring_buffer_bytes", help, &[]);
        gauge.set(i64::try_from(peak_bytes).unwrap_or(i64::MAX));
        let help = "Bytes that the ring buffer has.";
        let name = "deeptrace_ring_buffer_capacity_bytes";
        self.metrics.gauge(name, help, &[]).set_len(capacity);
    }

    /// What became of the messages.
    pub fn tracker(&mut self, tracker: &Tracker) {
        let counts = &tracker.counts;
        let help = "Messages of system calls that were handled.";
        self.total("deeptrace_messages", help, &[], counts.messages);
        let help = "Bytes of those messages.";
        self.total("deeptrace_message_bytes", help, &[], counts.bytes);
        for (protocol, spans) in &counts.spans {
            let help = "Spans made.";
            self.total("deeptrace_spans", help, &[("protocol", protocol)], *spans);
        }
        for ((protocol, reason), count) in &counts.unpaired {
            let help = "Requests and responses without a partner.";
            let labels = [("protocol", *protocol), ("reason", reason.as_str())];
            self.total("deeptrace_unpaired", help, &labels, *count);
        }
        for ((reason, port), count) in &counts.ignored {
            let help = "Connections from which nothing is read, by port of the accepting side.";
            let labels = [("reason", reason.as_str()), ("port", &port.to_string())];
            self.total("deeptrace_ignored_connections", help, &labels, *count);
        }
        for (port, count) in &counts.datagrams {
            let help = "Datagrams, which no protocol reads yet, by port.";
            self.total(
                "deeptrace_datagrams",
                help,
                &[("port", &port.to_string())],
                *count,
            );
        }
        for (reason, bytes) in ["mid_stream", "malformed", "too_long"]
            .into_iter()
            .zip(counts.lost_bytes)
        {
            let help = "Bytes given up looking for the start of a message.";
            self.total(
                "deeptrace_unparsed_bytes",
                help,
                &[("reason", reason)],
                bytes,
            );
        }
        let dropped = [
            ("gap", counts.gaps),
            ("overlap", counts.overlaps),
            ("unstable_offset", counts.unstable),
            ("process_gone", counts.no_process),
            ("connection_evicted", counts.evicted),
        ];
        for (reason, count) in dropped {
            let help = "Events that cost messages or spans, or may have.";
            self.total("deeptrace_dropped", help, &[("reason", reason)], count);
        }
        let help = "Connections that are followed.";
        self.metrics
            .gauge("deeptrace_connections", help, &[])
            .set_len(tracker.connections());
        let help = "Requests without a response yet.";
        self.metrics
            .gauge("deeptrace_open_requests", help, &[])
            .set(i64::try_from(tracker.open_requests()).unwrap_or(i64::MAX));
        let help = "Bytes that wait in connections.";
        self.metrics
            .gauge("deeptrace_buffered_bytes", help, &[])
            .set_len(tracker.buffered_bytes());
    }

    /// What became of the processes.
    pub fn discovery(&mut self, counts: Discovery, traced: usize) {
        let help = "Processes that are traced.";
        self.metrics
            .gauge("deeptrace_traced_processes", help, &[])
            .set_len(traced);
        let reasons = [
            ("too_many_traced", counts.refused_traced),
            ("too_many_known", counts.refused_known),
            ("gone", counts.gone),
            ("denied", counts.denied),
            ("unreadable", counts.unreadable),
            ("departed_evicted", counts.departed_evicted),
        ];
        for (reason, count) in reasons {
            let help = "Processes that could not be looked at or kept.";
            self.total(
                "deeptrace_processes_missed",
                help,
                &[("reason", reason)],
                count,
            );
        }
    }

    /// Records that are not ours, and those that there was no time for at the stop.
    pub fn records(&mut self, undecodable: u64, unread: u64) {
        let help = "Events that cost messages or spans, or may have.";
        for (reason, count) in [("undecodable", undecodable), ("shutdown", unread)] {
            self.total("deeptrace_dropped", help, &[("reason", reason)], count);
        }
    }

    fn total(&mut self, name: &str, help: &str, labels: &[(&str, &str)], total: u64) {
        let key = format!("{name}{labels:?}");
        let metrics = &self.metrics;
        let made = || (metrics.counter(name, help, labels), 0);
        let (counter, told) = self.told.entry(key).or_insert_with(made);
        counter.add(total.saturating_sub(*told));
        *told = total;
    }
}
