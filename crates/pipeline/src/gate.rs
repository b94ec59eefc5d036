//! A door in front of a pipeline, which one of its processors closes while memory is short.

use crate::telemetry::Counter;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Shuts a pipeline's receivers out while it is closed; a clone is the same gate.
///
/// ```text
/// open <-> closed
///   \\--------\\--> retired: open for good
/// ```
#[derive(Clone, Debug)]
pub struct Gate(Arc<Door>);

#[derive(Debug)]
struct Door {
    state: Mutex<State>,
    opened: Notify,
    opened_for_threads: Condvar,
    refused: Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Retired,
}

impl Gate {
    /// Open; counts the spans that it sends away.
    pub fn new(refused: Counter) -> Self {
        Self(Arc::new(Door {
            state: Mutex::new(State::Open),
            opened: Notify::new(),
            opened_for_threads: Condvar::new(),
            refused,
        }))
    }

    /// Lets nothing in any more, unless it is retired.
    pub fn close(&self) {
        let mut state = self.state();
        if *state == State::Open {
            *state = State::Closed;
        }
    }

    /// Lets in again, and wakes who waits.
    pub fn open(&self) {
        let mut state = self.state();
        if *state == State::Closed {
            *state = State::Open;
            self.wake();
        }
    }

    /// Opens for good: its processor is gone, or the service stops, when what receivers still
    /// hold is little and would be lost.
    pub fn retire(&self) {
        *self.state() = State::Retired;
        self.wake();
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        loop {
            // Asked for before the look: an opening in between is not missed.
            let opened = self.0.opened.notified();
            if *self.state() != State::Closed {
                return;
            }
            opened.await;
        }
    }

    /// Waits until it is open, on a thread that is not the runtime's.
    pub fn blocking_pass(&self) {
        let waited = self
            .0
            .opened_for_threads
            .wait_while(self.state(), |state| *state == State::Closed);
        drop(waited);
    }

    /// Whether it is closed now; then so many spans count as refused.
    pub fn refuses(&self, spans: usize) -> bool {
        let closed = *self.state() == State::Closed;
        if closed {
            self.0.refused.add_len(spans);
        }
        closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.0.opened.notify_waiters();
        self.0.opened_for_threads.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_at_a_closed_gate_goes_on_when_it_opens() {
        for open in [Gate::open, Gate::retire] {
            let gate = Gate::new(Counter::default());
            gate.pass().await;
            gate.close();
            let (task, thread) = (gate.clone(), gate.clone());
            let task = tokio::spawn(async move { task.pass().await });
            let thread = std::thread::spawn(move || thread.blocking_pass());
            tokio::task::yield_now().await;
            assert!(!task.is_finished() && !thread.is_finished());
            open(&gate);
            task.await.unwrap();
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_closed_gate_counts_what_it_sends_away_and_a_retired_one_never_closes() {
        let refused = Counter::default();
        let gate = Gate::new(refused.clone());
        assert!(!gate.refuses(2));
        gate.close();
        assert!(gate.refuses(3) && gate.refuses(4));
        gate.retire();
        gate.close();
        assert!(!gate.refuses(5));
        assert_eq!(refused.get(), 7);
    }
}
