//! Whether a batch has been taken over for good: what a receiver waits for before it answers.

use crate::telemetry::Loss;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// A batch was not taken over, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not taken: {}", .0.as_str())]
pub struct NotTaken(pub Loss);

impl NotTaken {
    /// Whether the same batch may be taken later.
    pub fn is_retryable(self) -> bool {
        !matches!(self.0, Loss::TooLarge | Loss::Refused | Loss::PartlyRefused)
    }
}

/// Rides with a batch and tells its receiver what became of it.
///
/// One that is dropped counts as accepted: whoever keeps the spans answers for them from then
/// on. The clones of several pipelines count together: refused is what all of them refused.
#[derive(Debug)]
pub struct Receipt {
    shared: Arc<Shared>,
    refused: bool,
}

/// Tells when the last [`Receipt`] is gone.
#[derive(Debug)]
pub struct Outcome(oneshot::Receiver<Result<(), NotTaken>>);

#[derive(Debug)]
struct Shared {
    accepted: AtomicBool,
    refusal: Mutex<Option<NotTaken>>,
    tell: Mutex<Option<oneshot::Sender<Result<(), NotTaken>>>>,
}

impl Receipt {
    /// A receipt, and where its outcome is told.
    pub fn new() -> (Self, Outcome) {
        let (tell, told) = oneshot::channel();
        let shared = Shared {
            accepted: AtomicBool::new(false),
            refusal: Mutex::new(None),
            tell: Mutex::new(Some(tell)),
        };
        let receipt = Self {
            shared: Arc::new(shared),
            refused: false,
        };
        (receipt, Outcome(told))
    }

    /// The spans stay with whoever sent them.
    pub fn refuse(mut self, why: NotTaken) {
        self.refused = true;
        let mut refusal = lock(&self.shared.refusal);
        // Of several reasons the one that leaves hope.
        if refusal.is_none_or(|known| !known.is_retryable()) {
            *refusal = Some(why);
        }
    }
}

impl Clone for Receipt {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            refused: false,
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.refused {
            self.shared.accepted.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let accepted = *self.accepted.get_mut();
        let refusal = *lock(&self.refusal);
        let outcome = match refusal {
            Some(why) if !accepted => Err(why),
            _ => Ok(()),
        };
        if let Some(tell) = lock(&self.tell).take() {
            // The receiver may have stopped waiting.
            let _ = tell.send(outcome);
        }
    }
}

impl Outcome {
    /// Waits until the batch has been taken over or refused.
    pub async fn wait(self) -> Result<(), NotTaken> {
        self.0.await.unwrap_or(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: NotTaken = NotTaken(Loss::QueueFull);
    const LARGE: NotTaken = NotTaken(Loss::TooLarge);

    /// What comes of so many clones, each of which is refused for a reason or dropped.
    async fn check(fates: &[Option<NotTaken>], expected: Result<(), NotTaken>) {
        let (receipt, outcome) = Receipt::new();
        let mut receipts = vec![receipt];
        receipts.extend(
            (1..fates.len())
                .map(|_| receipts[0].clone())
                .collect::<Vec<_>>(),
        );
        for (receipt, fate) in receipts.into_iter().zip(fates) {
            match fate {
                Some(why) => receipt.refuse(*why),
                None => drop(receipt),
            }
        }
        assert_eq!(outcome.wait().await, expected, "{fates:?}");
    }

    #[tokio::test]
    async fn refused_is_only_what_everybody_refused() {
        check(&[None], Ok(())).await;
        check(&[Some(FULL)], Err(FULL)).await;
        check(&[Some(FULL), None], Ok(())).await;
        check(&[None, Some(FULL)], Ok(())).await;
        check(&[Some(FULL), Some(LARGE)], Err(FULL)).await;
        check(&[Some(LARGE), Some(FULL)], Err(FULL)).await;
        check(&[Some(LARGE), Some(LARGE)], Err(LARGE)).await;
    }

    #[tokio::test]
    async fn the_last_clone_decides_when_the_outcome_is_told() {
        let (receipt, outcome) = Receipt::new();
        let other = receipt.clone();
        receipt.refuse(FULL);
        let mut waiting = outcome.0;
        assert!(waiting.try_recv().is_err());
        other.refuse(FULL);
        assert_eq!(waiting.try_recv(), Ok(Err(FULL)));
    }
}
