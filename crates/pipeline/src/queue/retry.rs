//! How long to wait before the next attempt; pure.

use super::settings::RetrySettings;
use std::time::Duration;

/// No wait is longer, whatever a server asks for.
const LONGEST: Duration = Duration::from_hours(24);

/// Exponential backoff with jitter of one request.
#[derive(Clone, Debug)]
pub struct Backoff<'a> {
    settings: &'a RetrySettings,
    next: Duration,
}

impl<'a> Backoff<'a> {
    /// Before the first retry.
    pub fn new(settings: &'a RetrySettings) -> Self {
        Self {
            settings,
            next: settings.initial_interval,
        }
    }

    /// The wait before the next attempt: at least what the server asked for.
    /// `random` is from 0 to 1.
    pub fn wait(&mut self, asked: Option<Duration>, random: f64) -> Duration {
        let base = self.next.min(self.settings.max_interval);
        self.next = base
            .mul_f64(self.settings.multiplier)
            .min(self.settings.max_interval);
        let share = self.settings.randomization_factor * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        let jittered = base.mul_f64((1.0 + share).max(0.0));
        jittered.max(asked.unwrap_or_default()).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_vary_by_the_factor() {
        let settings = RetrySettings::default();
        let mut backoff = Backoff::new(&settings);
        let seconds: Vec<f64> = (0..7)
            .map(|_| backoff.wait(None, 0.5).as_secs_f64())
            .collect();
        assert_eq!(seconds, [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0]);
        for (random, expected) in [(0.0, 2.5), (1.0, 7.5)] {
            assert_eq!(
                Backoff::new(&settings).wait(None, random),
                Duration::from_secs_f64(expected)
            );
        }
    }

    #[test]
    fn the_server_is_obeyed_but_not_for_ever() {
        let settings = RetrySettings::default();
        assert_eq!(
            Backoff::new(&settings).wait(Some(Duration::from_mins(1)), 0.5),
            Duration::from_mins(1)
        );
        assert_eq!(
            Backoff::new(&settings).wait(Some(Duration::from_secs(1)), 0.5),
            Duration::from_secs(5)
        );
        assert_eq!(
            Backoff::new(&settings).wait(Some(Duration::MAX), 0.5),
            LONGEST
        );
    }
}
