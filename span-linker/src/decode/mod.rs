//! Chooses parents from the evidence.
//!
//! ```text
//! ladder    one span at a time: exact rungs, threads, the only open request
//! stretch   what they leave open, all calls of a process and a stretch of time together
//! ```
//! Calls are decided in stretches of the process's time, in the order in which they began,
//! so that each finds those before it decided and the order of arrival does not matter.

mod around;
mod budget;
mod goroutines;
mod hops;
mod ladder;
mod queue;
mod stretch;

use crate::config::Config;
use crate::hops::AllHops;
use crate::queue::Queues;
use crate::sequence::{Process, Sequences};
use crate::window::Window;
use crate::window::entry::Side;
use crate::window::link::Link;
use budget::Budget;
use span_model::SpanId;

/// What decides.
#[derive(Debug)]
pub struct Decoder {
    /// A parent less likely than this is not given.
    floor: f32,
    /// Whether what the ladder leaves open goes to `queue`, and what that leaves to `sequence`.
    queue_order: bool,
    timing: bool,
    /// Length of a stretch, and how far beyond its end is looked.
    stretch_ns: u64,
    look_ns: u64,
    all_hops: AllHops,
    queues: Queues,
    sequences: Sequences,
    budget: Budget,
    /// Calls left without a parent because timing had spent its budget.
    unaffordable: u64,
}

impl Decoder {
    /// A decoder that has learned nothing; it decides spans that have waited for `decision_wait`.
    pub fn new(config: &Config) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a confidence needs three digits"
        )]
        let floor = config.confidence_floor as f32;
        let wait_ns = u64::try_from(config.decision_wait.as_nanos()).unwrap_or(u64::MAX);
        // A stretch and the look leave a third of the wait to spans that are late.
        let stretch_ns = (wait_ns / 8).max(MIN_STRETCH_NS);
        Self {
            floor,
            queue_order: config.queue_order,
            timing: config.timing,
            stretch_ns,
            look_ns: wait_ns / 2,
            all_hops: AllHops::default(),
            queues: Queues::default(),
            sequences: Sequences::default(),
            budget: Budget::new(stretch_ns),
            unaffordable: 0,
        }
    }

    /// Decides a span's parent, and those of all calls that its process began before.
    pub fn settle(&mut self, window: &mut Window, id: SpanId) {
        let Some(entry) = window.get(id) else { return };
        if entry.link.is_some() {
            return;
        }
        if entry.side == Side::Egress {
            let (process, start_ns) = (entry.process, entry.start_ns);
            self.decide_until(window, process, start_ns);
        }
        // A server span, or a call that came too late for its stretch.
        if let Some(reason) = ladder::climb(window, id, self.floor, None) {
            window.set_link(id, Link::None(reason));
        }
    }

    /// Calls left without a parent because timing had spent its budget.
    pub fn unaffordable(&self) -> u64 {
        self.unaffordable
    }

    /// How much of their share decoys got when timing was tested; none: it was not.
    pub fn decoys(&self) -> Option<f32> {
        let (mut got, mut by_chance) = (0.0, 0.0);
        for share in self.sequences.all().map(Process::decoys) {
            got += share.got;
            by_chance += share.by_chance;
        }
        (by_chance > 0.0).then(|| got / by_chance)
    }

    /// What was learned of hops.
    pub fn all_hops(&self) -> &AllHops {
        &self.all_hops
    }

    /// What was learned of queues.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// What was learned of sequences.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }
}

/// Stretches are at least this long, whatever the wait: 10 ms.
const MIN_STRETCH_NS: u64 = 10_000_000;
