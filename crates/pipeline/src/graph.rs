//! How batches flow: one task a pipeline, which runs its processors and hands
//! what comes out to its exporters.

use crate::batch::Batch;
use crate::clock::{self, Monotonic};
use crate::component::{Exporter, Processor};
use crate::receipt::{NotTaken, Receipt};
use crate::telemetry::{Loss, Losses, Metrics};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Batches that wait in front of a pipeline; then its receivers wait or are refused.
pub const PIPELINE_QUEUE_BATCHES: usize = 64;

/// A processor and its time.
struct Stage {
    processor: Box<dyn Processor>,
    interval: Option<Duration>,
    next_tick: Option<Instant>,
}

/// An exporter, and the spans that it did not take.
struct Outlet {
    exporter: Arc<dyn Exporter>,
    losses: Losses,
}

/// The batch that is being handed over.
#[derive(Default)]
struct InHand {
    spans: usize,
    receipt: Option<Receipt>,
}

/// One pipeline at work.
pub struct Driver {
    input: mpsc::Receiver<Batch>,
    stages: Vec<Stage>,
    outlets: Vec<Outlet>,
    /// Through the processors and not yet with the exporters.
    ready: VecDeque<Batch>,
    in_hand: InHand,
    losses: Losses,
}

impl Driver {
    /// For the pipeline of this id.
    pub fn new(
        id: &str,
        input: mpsc::Receiver<Batch>,
        processors: Vec<Box<dyn Processor>>,
        exporters: Vec<(String, Arc<dyn Exporter>)>,
        metrics: &Metrics,
    ) -> Self {
        let stage = |processor: Box<dyn Processor>| {
            let interval = processor.tick_interval();
            let next_tick = interval.map(|interval| clock::instant() + interval);
            Stage {
                processor,
                interval,
                next_tick,
            }
        };
        let outlet = |(id, exporter)| Outlet {
            exporter,
            losses: Losses::new(metrics, &format!("exporters/{id}")),
        };
        Self {
            input,
            stages: processors.into_iter().map(stage).collect(),
            outlets: exporters.into_iter().map(outlet).collect(),
            ready: VecDeque::new(),
            in_hand: InHand::default(),
            losses: Losses::new(metrics, &format!("pipelines/{id}")),
        }
    }

    /// Works until every receiver has dropped its sender and all is handed on, or until
    /// `give_up`: then what is left is counted as lost.
    pub async fn run(mut self, give_up: CancellationToken) {
        let finished = tokio::select! {
            biased;
            () = give_up.cancelled() => false,
            () = self.work() => true,
        };
        if !finished {
            self.abandon();
        }
    }

    async fn work(&mut self) {
        loop {
            let next_tick = self.stages.iter().filter_map(|stage| stage.next_tick).min();
            let tick = async {
                match next_tick {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let ready = tokio::select! {
                batch = self.input.recv() => match batch {
                    Some(batch) => self.advance(0, vec![batch]),
                    None => break,
                },
                () = tick => self.tick(),
            };
            self.ready.extend(ready);
            self.deliver().await;
        }
        let ready = self.flush();
        self.ready.extend(ready);
        self.deliver().await;
    }

    /// Sends batches through the processors from this stage on.
    fn advance(&mut self, from: usize, batches: Vec<Batch>) -> Vec<Batch> {
        let now = Monotonic::now();
        self.stages
            .iter_mut()
            .skip(from)
            .fold(batches, |batches, stage| {
                let mut out = Vec::new();
                for batch in batches {
                    stage.processor.process(batch, now, &mut out);
                }
                out
            })
    }

    fn tick(&mut self) -> Vec<Batch> {
        let (now, instant) = (Monotonic::now(), clock::instant());
        let mut ready = Vec::new();
        for index in 0..self.stages.len() {
            let mut out = Vec::new();
            if let Some(stage) = self.stages.get_mut(index)
                && stage.next_tick.is_some_and(|at| at <= instant)
            {
                stage.processor.tick(now, &mut out);
                // Counted from now: ticks that were missed are not made up for.
                stage.next_tick = stage.interval.map(|interval| instant + interval);
            }
            ready.extend(self.advance(index + 1, out));
        }
        ready
    }

    fn flush(&mut self) -> Vec<Batch> {
        let now = Monotonic::now();
        let mut ready = Vec::new();
        for index in 0..self.stages.len() {
            let mut out = Vec::new();
            if let Some(stage) = self.stages.get_mut(index) {
                stage.processor.flush(now, &mut out);
            }
            ready.extend(self.advance(index + 1, out));
        }
        ready
    }

    async fn deliver(&mut self) {
        while let Some(mut batch) = self.ready.pop_front() {
            batch.openings.clear();
            let spans = batch.span_count();
            if spans == 0 {
                continue;
            }
            // Out of the batch, so that an exporter that keeps it keeps nobody waiting.
            let receipt = batch.take_receipt();
            self.in_hand = InHand { spans, receipt };
            let batch = Arc::new(batch);
            let mut refusals = Vec::new();
            for (index, outlet) in self.outlets.iter().enumerate() {
                if let Err(why) = outlet.exporter.consume(Arc::clone(&batch)).await {
                    refusals.push((index, why));
                }
            }
            let receipt = std::mem::take(&mut self.in_hand).receipt;
            self.settle(&refusals, spans, receipt);
        }
    }

    /// Lost is what an exporter did not take, unless none did and the receiver gets it back.
    fn settle(&self, refusals: &[(usize, NotTaken)], spans: usize, receipt: Option<Receipt>) {
        if let (Some(receipt), Some((_, why))) = (receipt, refusals.first())
            && refusals.len() == self.outlets.len()
        {
            return receipt.refuse(*why);
        }
        for (index, NotTaken(loss)) in refusals {
            if let Some(outlet) = self.outlets.get(*index) {
                outlet.losses.count(*loss, spans);
            }
        }
    }

    /// Refuses or counts what has not reached the exporters. Errs high: some exporters may have
    /// taken the batch that was being handed over.
    fn abandon(&mut self) {
        const WHY: NotTaken = NotTaken(Loss::Shutdown);
        self.input.close();
        let mut left = Vec::new();
        while let Ok(batch) = self.input.try_recv() {
            left.push(batch);
        }
        left.extend(self.flush());
        left.extend(self.ready.drain(..));
        let in_hand = std::mem::take(&mut self.in_hand);
        let mut spans = match in_hand.receipt {
            None => in_hand.spans,
            Some(receipt) => {
                receipt.refuse(WHY);
                0
            }
        };
        for batch in left {
            let count = batch.span_count();
            if !batch.refuse(WHY) {
                spans += count;
            }
        }
        if spans > 0 {
            tracing::warn!(spans, "time to stop is over, spans are lost");
            self.losses.count(Loss::Shutdown, spans);
        }
    }
}
