//! Lines that come again and again: the first of them are written, then one in so many.

use super::settings::SamplingSettings;
use crate::clock::Monotonic;
use std::collections::HashMap;
use std::fmt::{self, Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Messages counted at a time; beyond it all are counted anew.
const MAX_MESSAGES: usize = 4096;

/// Lines that were left out by all logs of this process.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many lines have been left out.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Counts equal messages of the same place in the code.
pub(super) struct Sampling {
    settings: SamplingSettings,
    counts: Mutex<HashMap<u64, (Monotonic, u64)>>,
}

impl Sampling {
    pub fn new(settings: &SamplingSettings) -> Self {
        Self {
            settings: settings.clone(),
            counts: Mutex::default(),
        }
    }

    /// Whether this line is written.
    fn admits(&self, message: u64, now: Monotonic) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_MESSAGES && !counts.contains_key(&message) {
            counts.clear();
        }
        let (since, count) = counts.entry(message).or_insert((now, 0));
        if now.since(*since) >= self.settings.tick {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        let beyond = count.saturating_sub(self.settings.initial);
        let thereafter = self.settings.thereafter;
        beyond == 0 || thereafter > 0 && beyond.is_multiple_of(thereafter)
    }
}

impl<S: Subscriber> Layer<S> for Sampling {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let mut hasher = DefaultHasher::new();
        event.metadata().callsite().hash(&mut hasher);
        event.record(&mut Message(&mut hasher));
        let admitted = self.admits(hasher.finish(), Monotonic::now());
        if !admitted {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}

/// The text of an event, without its fields.
struct Message<'a>(&'a mut DefaultHasher);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self, "{value:?}");
        }
    }
}

impl fmt::Write for Message<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_first_lines_are_written_and_then_one_in_so_many() {
        let sampling = |thereafter| {
            Sampling::new(&SamplingSettings {
                enabled: true,
                tick: Duration::from_secs(1),
                initial: 2,
                thereafter,
            })
        };
        let admitted = |sampling: &Sampling, times: &[u64]| -> Vec<bool> {
            let at = |millis| Monotonic::from_millis(millis);
            times
                .iter()
                .map(|time| sampling.admits(7, at(*time)))
                .collect()
        };
        let (one_in_3, none) = (sampling(3), sampling(0));
        let times = [0, 1, 2, 3, 4, 5, 6, 7];
        let (yes, no) = (true, false);
        assert_eq!(
            admitted(&one_in_3, &times),
            [yes, yes, no, no, yes, no, no, yes]
        );
        assert_eq!(admitted(&one_in_3, &[1000, 1001, 1002]), [yes, yes, no]);
        assert_eq!(admitted(&none, &times), [yes, yes, no, no, no, no, no, no]);
        assert!(none.admits(8, Monotonic::from_millis(7)), "another message");
    }

    #[test]
    fn what_it_counts_is_bounded() {
        let sampling = Sampling::new(&SamplingSettings::default());
        for message in 0..3 * MAX_MESSAGES as u64 {
            sampling.admits(message, Monotonic::default());
        }
        assert!(sampling.counts.lock().unwrap().len() <= MAX_MESSAGES);
    }
}
