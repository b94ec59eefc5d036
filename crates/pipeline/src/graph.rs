//! How batches flow: one task a pipeline, which runs its processors and hands
//! what comes out to its exporters.
//!
//! A reload changes its processors and exporters between two batches:
//! ```text
//!           Pause: flush what goes            Resume: with what is new
//! running ---------------------------> paused -------------------------> running
//! ```
//! It begins paused.

use crate::batch::Batch;
use crate::clock::{self, Monotonic};
use crate::component::{Exporter, Processor};
use crate::config::ComponentId;
use crate::receipt::{NotTaken, Receipt};
use crate::telemetry::{Counter, Gauge, Histogram, Level, Loss, Losses, Metrics, SECOND_BOUNDS};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Batches that wait in front of a pipeline; then its receivers wait or are refused.
pub const PIPELINE_QUEUE_BATCHES: usize = 64;

/// What a driver is told while it works.
pub enum Control {
    /// Finish with what is in hand, and take nothing more. Processors that are not kept
    /// let go of what they hold, to the exporters there are.
    Pause {
        /// Processors that stay, with all that they hold.
        keep: Vec<ComponentId>,
        /// Told when that is done and the exporters are let go of.
        paused: oneshot::Sender<()>,
    },
    /// Go on.
    Resume(Line),
}

/// What batches pass through from now on.
pub struct Line {
    /// In order; None: the one of this id that was kept.
    pub processors: Vec<(ComponentId, Option<Box<dyn Processor>>)>,
    /// Each gets every batch.
    pub exporters: Vec<(ComponentId, Arc<dyn Exporter>)>,
}

/// A processor and its time.
struct Stage {
    id: ComponentId,
    processor: Box<dyn Processor>,
    interval: Option<Duration>,
    next_tick: Option<Instant>,
    incoming: Counter,
    outgoing: Counter,
    duration: Histogram,
}

impl Stage {
    fn new(id: ComponentId, processor: Box<dyn Processor>, metrics: &Metrics) -> Self {
        let interval = processor.tick_interval();
        let next_tick = interval.map(|interval| clock::instant() + interval);
        let labels = [("processor", id.as_str()), ("otel_signal", "traces")];
        let items = metrics.at(Level::Normal);
        let counter = |name, help| items.counter(name, help, &labels);
        Self {
            incoming: counter("otelcol_processor_incoming_items", "Spans that came to it."),
            outgoing: counter("otelcol_processor_outgoing_items", "Spans that it let go."),
            duration: metrics.at(Level::Detailed).histogram(
                "otelcol_processor_internal_duration",
                "Seconds of work at a time.",
                &labels,
                SECOND_BOUNDS,
            ),
            id,
            processor,
            interval,
            next_tick,
        }
    }

    /// Lets it work, and counts what it lets go.
    fn work(
        &mut self,
        now: Monotonic,
        out: &mut Vec<Batch>,
        task: impl FnOnce(&mut dyn Processor, &mut Vec<Batch>),
    ) {
        let before = out.len();
        task(self.processor.as_mut(), out);
        let new = out.iter().skip(before).map(Batch::span_count).sum();
        self.outgoing.add_len(new);
        self.duration
            .record(Monotonic::now().since(now).as_secs_f64());
    }
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
    control: mpsc::Receiver<Control>,
    stages: Vec<Stage>,
    outlets: Vec<Outlet>,
    /// Through the processors and not yet with the exporters.
    ready: VecDeque<Batch>,
    in_hand: InHand,
    /// Spans in all of these, of those that `inside` tells.
    taken: usize,
    inside: Gauge,
    losses: Losses,
    metrics: Metrics,
}

impl Driver {
    /// For the pipeline of this id; works once it is told to [`Control::Resume`]. Whoever fills
    /// the queue `input` adds the spans to the gauge `inside`.
    pub fn new(
        id: &ComponentId,
        input: mpsc::Receiver<Batch>,
        control: mpsc::Receiver<Control>,
        inside: Gauge,
        metrics: &Metrics,
    ) -> Self {
        Self {
            input,
            control,
            stages: Vec::new(),
            outlets: Vec::new(),
            ready: VecDeque::new(),
            in_hand: InHand::default(),
            taken: 0,
            inside,
            losses: losses_of(id, metrics),
            metrics: metrics.clone(),
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
            self.abandon().await;
        }
    }

    async fn work(&mut self) {
        self.obey(None).await;
        loop {
            let next_tick = self.stages.iter().filter_map(|stage| stage.next_tick).min();
            let tick = async {
                match next_tick {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let ready = tokio::select! {
                Some(control) = self.control.recv() => {
                    self.obey(Some(control)).await;
                    continue;
                }
                batch = self.input.recv() => match batch {
                    Some(batch) => {
                        self.taken += batch.span_count();
                        self.advance(0, vec![batch])
                    }
                    None => break,
                },
                () = tick => self.tick(),
            };
            self.ready.extend(ready);
            self.deliver().await;
        }
        let ready = self.flush(|_| true);
        self.ready.extend(ready);
        self.deliver().await;
    }

    /// Does what it is told, first `control`, and is back when that is to go on.
    async fn obey(&mut self, mut control: Option<Control>) {
        loop {
            let next = match control.take() {
                Some(control) => Some(control),
                None => self.control.recv().await,
            };
            match next {
                Some(Control::Pause { keep, paused }) => {
                    let ready = self.flush(|id| !keep.contains(id));
                    self.ready.extend(ready);
                    self.deliver().await;
                    self.stages.retain(|stage| keep.contains(&stage.id));
                    self.outlets.clear();
                    // Nobody waits any more if this fails.
                    let _ = paused.send(());
                }
                Some(Control::Resume(line)) => return self.resume(line),
                // The service is gone; it cancels this task if it still can.
                None => std::future::pending().await,
            }
        }
    }

    fn resume(&mut self, line: Line) {
        let mut kept = std::mem::take(&mut self.stages);
        for (id, processor) in line.processors {
            let stage = match processor {
                Some(processor) => Some(Stage::new(id, processor, &self.metrics)),
                None => kept.extract_if(.., |stage| stage.id == id).next(),
            };
            self.stages.extend(stage);
        }
        let metrics = &self.metrics;
        let outlet = |(id, exporter)| Outlet {
            exporter,
            losses: Losses::new(metrics, &format!("exporters/{id}")),
        };
        self.outlets = line.exporters.into_iter().map(outlet).collect();
    }

    /// Sends batches through the processors from this stage on.
    fn advance(&mut self, from: usize, batches: Vec<Batch>) -> Vec<Batch> {
        self.stages
            .iter_mut()
            .skip(from)
            .fold(batches, |batches, stage| {
                let mut out = Vec::new();
                for batch in batches {
                    let now = Monotonic::now();
                    stage.incoming.add_len(batch.span_count());
                    stage.work(now, &mut out, |processor, out| {
                        processor.process(batch, now, out);
                    });
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
                stage.work(now, &mut out, |processor, out| processor.tick(now, out));
                // Counted from now: ticks that were missed are not made up for.
                stage.next_tick = stage.interval.map(|interval| instant + interval);
            }
            ready.extend(self.advance(index + 1, out));
        }
        ready
    }

    /// Lets these processors go of what they hold, in the order of the data.
    fn flush(&mut self, which: impl Fn(&ComponentId) -> bool) -> Vec<Batch> {
        let now = Monotonic::now();
        let mut ready = Vec::new();
        for index in 0..self.stages.len() {
            let mut out = Vec::new();
            if let Some(stage) = self.stages.get_mut(index)
                && which(&stage.id)
            {
                stage.work(now, &mut out, |processor, out| processor.flush(now, out));
            }
            ready.extend(self.advance(index + 1, out));
        }
        ready
    }

    async fn deliver(&mut self) {
        self.weigh();
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
            self.tell(self.taken.saturating_sub(spans));
        }
    }

    /// Looks how many spans are left: processors drop some and make others.
    fn weigh(&mut self) {
        let held = self.stages.iter().map(|stage| stage.processor.held_spans());
        let ready = self.ready.iter().map(Batch::span_count);
        self.tell(held.chain(ready).sum());
    }

    fn tell(&mut self, taken: usize) {
        let signed = |spans| i64::try_from(spans).unwrap_or(i64::MAX);
        self.inside.add(signed(taken) - signed(self.taken));
        self.taken = taken;
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
    /// taken the batch that was being handed over, and processors might have dropped some.
    async fn abandon(&mut self) {
        const WHY: NotTaken = NotTaken(Loss::Shutdown);
        self.input.close();
        let mut left = Vec::new();
        // Not `try_recv`: a sender that has its place may not have put its batch there yet.
        while let Some(batch) = self.input.recv().await {
            left.push(batch);
        }
        left.extend(self.ready.drain(..));
        let in_hand = std::mem::take(&mut self.in_hand);
        let mut spans = match in_hand.receipt {
            None => in_hand.spans,
            Some(receipt) => {
                receipt.refuse(WHY);
                0
            }
        };
        spans += self
            .stages
            .iter()
            .map(|stage| stage.processor.held_spans())
            .sum::<usize>();
        for batch in left {
            let count = batch.span_count();
            if !batch.refuse(WHY) {
                spans += count;
            }
        }
        self.inside.set(0);
        if spans > 0 {
            tracing::warn!(spans, "time to stop is over, spans are lost");
            self.losses.count(Loss::Shutdown, spans);
        }
    }
}

/// What the pipeline of this id gives up itself.
pub fn losses_of(id: &ComponentId, metrics: &Metrics) -> Losses {
    Losses::new(metrics, &format!("pipelines/{id}"))
}
