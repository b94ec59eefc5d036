//! New configurations while spans flow: every span arrives exactly once, and what has not
//! changed goes on as it was.

use crate::support::peer::{Answer, Peer};
use crate::support::{FEED, HOLD, batch_of, config_with, total, wait_for};
use pipeline::component::{Factories, ReceiverFactory, Reconfigure};
use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
use pipeline::receiver::spawn_thread;
use pipeline::service::Reloads;
use pipeline::telemetry::Metrics;
use pipeline::{
    BatchSender, BoxError, Context, Receiver, ReceiverSettings, Running, Service, ServiceError,
    Settings, Summary,
};
use prost::Message;
use schemars::JsonSchema;
use serde::Deserialize;
use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const FACTORIES: Factories = Factories {
    receivers: &[FEED, ReceiverFactory::receiver::<Stream>("stream")],
    processors: &[HOLD],
    exporters: pipeline::exporters::ALL,
    extensions: pipeline::extensions::ALL,
};

/// Batches made by all streams of this process: no two spans have the same id.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Sends a batch of one span after the other until it is stopped.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Stream {
    /// Taken over while it runs: the name of a counter of the batches made since then.
    note: String,
    /// Needs another start.
    restart: u64,
    fail_to_start: bool,
}

impl Settings for Stream {}

impl ReceiverSettings for Stream {
    fn build(&self, context: Context) -> Result<Box<dyn Receiver>, BoxError> {
        Ok(Box::new(Streaming {
            settings: self.clone(),
            note: Arc::new(Mutex::new(self.note.clone())),
            metrics: context.metrics,
        }))
    }
}

struct Streaming {
    settings: Stream,
    note: Arc<Mutex<String>>,
    metrics: Metrics,
}

impl Receiver for Streaming {
    fn start(
        self: Box<Self>,
        output: BatchSender,
        stop: CancellationToken,
    ) -> Result<Running, BoxError> {
        if self.settings.fail_to_start {
            return Err("it was told not to".into());
        }
        self.metrics.counter("starts", "", &[]).inc();
        Ok(spawn_thread("stream", move || {
            while !stop.is_cancelled() {
                let batch = batch_of(MADE.fetch_add(1, Ordering::Relaxed), 1);
                output.blocking_send(batch)?;
                let note = self.note.lock().unwrap().clone();
                self.metrics.counter("made", "", &[("note", &note)]).inc();
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(())
        })?)
    }

    fn reconfigure(&self) -> Option<Box<dyn Reconfigure>> {
        Some(Box::new(Change {
            settings: self.settings.clone(),
            note: Arc::clone(&self.note),
        }))
    }
}

struct Change {
    settings: Stream,
    note: Arc<Mutex<String>>,
}

impl Reconfigure for Change {
    fn reconfigure(&mut self, settings: &dyn ReceiverSettings) -> bool {
        let settings: &dyn Any = settings;
        let Some(new) = settings.downcast_ref::<Stream>() else {
            return false;
        };
        let possible = new.restart == self.settings.restart && !new.fail_to_start;
        if possible {
            self.note.lock().unwrap().clone_from(&new.note);
            self.settings = new.clone();
        }
        possible
    }
}

/// A service that runs, and what it is told.
struct Flow {
    metrics: Metrics,
    yaml: Arc<Mutex<String>>,
    reload: mpsc::Sender<()>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<Summary, ServiceError>>,
}

impl Flow {
    fn start(yaml: &str) -> Self {
        let metrics = Metrics::default();
        let service = Service::build(&config_with(yaml, &FACTORIES).unwrap(), metrics.clone());
        let yaml = Arc::new(Mutex::new(yaml.to_owned()));
        let (reload, wanted) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let read = Arc::clone(&yaml);
        let reloads = Reloads::new(wanted, move || {
            config_with(&read.lock().unwrap(), &FACTORIES)
        });
        let until = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(service.unwrap().run_with(until, reloads));
        Self {
            metrics,
            yaml,
            reload,
            stop,
            task,
        }
    }

    fn count(&self, name: &str) -> u64 {
        total(&self.metrics.samples(), name)
    }

    fn labelled(&self, name: &str, label: (&str, &str)) -> u64 {
        let samples = self.metrics.samples().into_iter();
        let samples: Vec<_> = samples
            .filter(|sample| sample.label(label.0) == Some(label.1))
            .collect();
        total(&samples, name)
    }

    /// Waits until so many more batches have been made.
    async fn flow(&self) {
        let made = self.count("made");
        wait_for(|| self.count("made") > made + 50).await;
    }

    /// Reloads while spans flow, and waits until the outcome is counted.
    async fn reload(&self, yaml: &str, result: &str) {
        let outcome = ("result", result);
        let before = self.labelled("deeptrace_config_reloads", outcome);
        yaml.clone_into(&mut self.yaml.lock().unwrap());
        self.reload.send(()).await.unwrap();
        wait_for(|| self.labelled("deeptrace_config_reloads", outcome) > before).await;
        self.flow().await;
    }

    async fn stop(self) -> Summary {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap()
    }
}

/// How often each span stands in the files.
fn written(dir: &Path) -> BTreeMap<String, u64> {
    let mut spans = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for id in text.split("\"spanId\":\"").skip(1) {
            *spans.entry(id[..16].to_owned()).or_default() += 1;
        }
    }
    spans
}

fn yaml(receiver: &str, processors: &str, exporters: &str, used: &str) -> String {
    format!(
        "receivers: {{stream: {receiver}}}\n\
         processors: {{hold: {{}}, hold/short: {{hold: 20ms}}}}\n\
         exporters: {exporters}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    traces: \
         {{receivers: [stream], processors: [{processors}], exporters: [{used}]}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_span_arrives_once_through_reloads_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let exporters = format!("{{file: {{path: {:?}}}}}", file("a"));
    let first = yaml("{}", "", &exporters, "file");
    let running = Flow::start(&first);
    running.flow().await;
    let steps = [
        // Nothing, a setting taken over, a receiver started anew.
        first.clone(),
        yaml("{note: x}", "", &exporters, "file"),
        yaml("{note: x, restart: 1}", "", &exporters, "file"),
        // Processors that come, stay with what they hold, move and go.
        yaml("{restart: 1}", "hold/short", &exporters, "file"),
        yaml("{restart: 1}", "hold, hold/short", &exporters, "file"),
        yaml("{restart: 1}", "hold/short, hold", &exporters, "file"),
        yaml("{restart: 1}", "", &exporters, "file"),
        // An exporter with other settings for the same file, under another id, another file.
        first.replace("}}\nservice", ", format: json}}\nservice"),
        first
            .replace("file:", "file/b:")
            .replace("[file]", "[file/b]"),
        first.replace("/a\"", "/b\""),
        // Another pipeline in place of the first.
        first.replace("traces:", "traces/b:"),
        first.clone(),
    ];
    for step in steps {
        running.reload(&step, "taken_over").await;
    }
    let summary = running.stop().await;
    assert!(summary.failure.is_none());
    let made = total(&summary.samples, "made");
    let written = written(dir.path());
    assert_eq!(written.len() as u64, made);
    assert!(written.values().all(|times| *times == 1));
    assert_eq!(
        total(&summary.samples, "otelcol_receiver_accepted_spans"),
        made
    );
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), made);
    assert_eq!(total(&summary.samples, "deeptrace_lost_spans"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_changed_goes_on_with_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let exporters = format!("{{file: {{path: {path:?}}}}}");
    let first = yaml("{note: first}", "hold", &exporters, "file");
    let running = Flow::start(&first);
    running.flow().await;
    let second = first
        .replace("first", "second")
        .replace("path", "append: false, path");
    running.reload(&second, "taken_over").await;
    assert!(running.labelled("made", ("note", "second")) > 0);
    assert_eq!(
        running.count("starts"),
        1,
        "the receiver was not started anew"
    );
    assert_eq!(
        running.count("otelcol_exporter_sent_spans"),
        0,
        "all is held still"
    );
    let summary = running.stop().await;
    let made = total(&summary.samples, "made");
    assert_eq!(written(dir.path()).len() as u64, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_leaves_the_old_one_running() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let exporters = format!("{{file: {{path: {path:?}}}}}");
    let first = yaml("{}", "hold/short", &exporters, "file");
    let running = Flow::start(&first);
    running.flow().await;
    let cases = [
        (
            first.replace("receivers: [stream]", "receivers: [steam]"),
            "invalid",
        ),
        (String::new(), "invalid"),
        (first.replace("\"}}", "/no/such/file\"}}"), "failed"),
        // Found only when files have changed hands and the old receiver has ended.
        (
            first
                .replace("stream: {}", "stream: {fail_to_start: true}")
                .replace("path", "append: false, path"),
            "failed",
        ),
    ];
    for (broken, result) in cases {
        running.reload(&broken, result).await;
        assert!(!running.task.is_finished());
    }
    running.reload(&first, "taken_over").await;
    let summary = running.stop().await;
    assert!(summary.failure.is_none());
    for s in &summary.samples {
        if s.value > 0.0 {
            eprintln!("{s}");
        }
    }
    let made = total(&summary.samples, "made");
    let written = written(dir.path());
    assert_eq!(written.len() as u64, made);
    assert!(written.values().all(|times| *times == 1));
}

/// How often each span came to these peers.
fn received(peers: &[&Peer]) -> BTreeMap<Vec<u8>, u64> {
    let mut ids = BTreeMap::new();
    for seen in peers.iter().flat_map(|peer| peer.seen()) {
        let request = ExportTraceServiceRequest::decode(seen.body).unwrap();
        let scopes = request
            .resource_spans
            .into_iter()
            .flat_map(|one| one.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            *ids.entry(span.span_id).or_default() += 1;
        }
    }
    ids
}

fn accepts() -> Answer {
    Answer {
        status: 200,
        headers: vec![("content-type", "application/x-protobuf".to_owned())],
        ..Answer::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exporter_that_is_replaced_sends_what_it_had() {
    let slow = Answer {
        delay: Duration::from_millis(300),
        ..accepts()
    };
    let (old, new) = (
        Peer::http(vec![slow]).await,
        Peer::http(vec![accepts()]).await,
    );
    let exporter = |port: u16| {
        format!(
            "{{otlp_http: {{endpoint: 'http://127.0.0.1:{port}', compression: none, \
             sending_queue: {{num_consumers: 2, queue_size: 100000, batch: {{min_size: 100}}}}}}}}"
        )
    };
    let running = Flow::start(&yaml("{}", "", &exporter(old.port), "otlp_http"));
    running.flow().await;
    let second = yaml("{}", "", &exporter(new.port), "otlp_http");
    running.reload(&second, "taken_over").await;
    wait_for(|| !new.seen().is_empty()).await;
    let summary = running.stop().await;
    assert!(!old.seen().is_empty());
    let ids = received(&[&old, &new]);
    assert_eq!(ids.len() as u64, total(&summary.samples, "made"));
    assert!(ids.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_on_disk_goes_on_in_the_exporter_that_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let away = Answer {
        status: 503,
        ..Answer::default()
    };
    let (old, new) = (
        Peer::http(vec![away]).await,
        Peer::http(vec![accepts()]).await,
    );
    let config = |port: u16| {
        let exporter = format!(
            "{{otlp_http: {{endpoint: 'http://127.0.0.1:{port}', compression: none, \
             retry_on_failure: {{initial_interval: 10ms, max_interval: 10ms}}, \
             sending_queue: {{queue_size: 100000, storage: file_storage}}}}}}"
        );
        let storage = format!(
            "extensions: {{file_storage: {{directory: {:?}}}}}\n",
            dir.path()
        );
        let yaml = yaml("{}", "", &exporter, "otlp_http");
        storage + &yaml.replace("service:\n", "service:\n  extensions: [file_storage]\n")
    };
    let running = Flow::start(&config(old.port));
    running.flow().await;
    // Twice, so that what was stored while another had the file is there too.
    running
        .reload(&config(old.port).replace("10ms", "20ms"), "taken_over")
        .await;
    running.reload(&config(new.port), "taken_over").await;
    let summary = running.stop().await;
    let made = total(&summary.samples, "made");
    assert!(!old.seen().is_empty());
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), made);
    assert_eq!(total(&summary.samples, "deeptrace_lost_spans"), 0);
    let ids = received(&[&new]);
    assert_eq!(ids.len() as u64, made);
    assert!(ids.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_away_holds_up_neither_a_reload_nor_a_stop_for_long() {
    let exporters = "{otlp_http: {endpoint: 'http://127.0.0.1:1', \
         retry_on_failure: {initial_interval: 1h, max_interval: 1h, max_elapsed_time: 0}, \
         sending_queue: {enabled: false}}, debug: {output_paths: [/dev/null]}}";
    let first = yaml("{}", "", exporters, "otlp_http")
        .replace("service:\n", "service:\n  shutdown_timeout: 200ms\n");
    let running = Flow::start(&first);
    wait_for(|| running.count("made") > 0).await;
    let second = first.replace("[otlp_http]", "[debug]");
    running.reload(&second, "taken_over").await;
    let summary = running.stop().await;
    let sent = total(&summary.samples, "otelcol_exporter_sent_spans");
    let lost = total(&summary.samples, "deeptrace_lost_spans");
    assert!(lost > 0);
    assert_eq!(sent + lost, total(&summary.samples, "made"));
}
