//! What the linker counts; the glue turns it into metrics.

use crate::assemble::Late;
use crate::window::link::{Method, Reason};

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    linked: [u64; Method::ALL.len()],
    unlinked: [u64; Reason::ALL.len()],
    /// Callers that came after their callee was exported and joined its trace.
    pub late_joined: u64,
    /// Callers that came too late to share a trace with their callee: two traces and a span link.
    pub late_split: u64,
    /// Spans that came more than once and were collapsed.
    pub duplicates: u64,
    /// Spans exported unlinked because the window was full.
    pub refused: u64,
    /// Open requests forgotten because the window was full or they were too old.
    pub forgotten_openings: u64,
    /// Processes whose sequences and gaps were forgotten because there were too many.
    pub forgotten_models: u64,
    /// Sequences and gaps that were not learned because the process has too many.
    pub refused_samples: u64,
    /// Calls left without a parent because timing had spent its budget.
    pub unaffordable: u64,
    /// Spans that already had a trace and went through as they came.
    pub foreign: u64,
    /// Spans without a usable span id; they go through as they came.
    pub malformed: u64,
}

impl Stats {
    /// Spans linked by `method`.
    pub fn linked(&self, method: Method) -> u64 {
        self.linked.get(method as usize).copied().unwrap_or(0)
    }

    /// Spans left without a parent because of `reason`.
    pub fn unlinked(&self, reason: Reason) -> u64 {
        self.unlinked.get(reason as usize).copied().unwrap_or(0)
    }

    pub(crate) fn count_late(&mut self, late: Option<Late>) {
        match late {
            Some(Late::Joined) => self.late_joined += 1,
            Some(Late::Split) => self.late_split += 1,
            None => {}
        }
    }

    pub(crate) fn count_linked(&mut self, method: Method) {
        bump(self.linked.get_mut(method as usize));
    }

    pub(crate) fn count_unlinked(&mut self, reason: Reason) {
        bump(self.unlinked.get_mut(reason as usize));
    }
}

fn bump(counter: Option<&mut u64>) {
    if let Some(counter) = counter {
        *counter += 1;
    }
}
