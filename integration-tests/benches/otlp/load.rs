//! A client that sends requests as fast as they are taken, or so many spans a second.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pipeline::Batch;
use pipeline::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use pipeline::proto::resource::v1::Resource;
use pipeline::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 4;
/// Requests under way on each.
const AT_A_TIME: usize = 4;
/// After a refusal.
const PAUSE: Duration = Duration::from_millis(5);
const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Requests of so many spans, as they go over the wire.
#[derive(Clone)]
pub struct Requests {
    pub spans: usize,
    framed: Arc<[Bytes]>,
}

impl Requests {
    /// Some different ones, of server spans as HTTP instrumentation makes them.
    pub fn of(spans: usize) -> Self {
        let framed = (0..16).map(|number| {
            let body = Batch::new(vec![resource_spans(number, spans)]).encode();
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
            Bytes::from([&[0], &length[..], &body].concat())
        });
        Self {
            spans,
            framed: framed.collect(),
        }
    }
}

fn resource_spans(request: u64, spans: usize) -> ResourceSpans {
    let resource = Resource {
        attributes: vec![
            text("service.name", "storefront".to_owned()),
            text("service.instance.id", format!("{request:032x}")),
            text("telemetry.sdk.language", "python".to_owned()),
            text("host.name", "node-7.cluster".to_owned()),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "http.server".to_owned(),
        version: "1.0".to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: (0..spans as u64)
            .map(|number| span(request << 32 | number))
            .collect(),
        ..ScopeSpans::default()
    };
    ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    }
}

fn span(number: u64) -> Span {
    let start = 1_760_000_000_000_000_000 + number * 1000;
    Span {
        trace_id: u128::from(number / 8 + 1).to_be_bytes().to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        parent_span_id: (number / 2 + 1).to_be_bytes().to_vec(),
        name: "GET /product/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 3_000_000,
        attributes: vec![
            text("http.request.method", "GET".to_owned()),
            text("url.path", format!("/product/{number}")),
            text("url.scheme", "http".to_owned()),
            text("http.route", "/product/{id}".to_owned()),
            text("server.address", "storefront.shop.svc".to_owned()),
            text("client.address", "10.2.33.41".to_owned()),
            text("network.protocol.version", "1.1".to_owned()),
            text("user_agent.original", "python-requests/2.32".to_owned()),
            whole("server.port", 8080),
            whole("http.response.status_code", 200),
        ],
        ..Span::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

fn whole(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Requests under way, again and again.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<()>>,
}

struct Shared {
    requests: Requests,
    port: u16,
    /// Between two requests of a task.
    interval: Option<Duration>,
    acked: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// Sends to this port, as fast as it is answered or so many spans a second.
    pub async fn start(port: u16, requests: &Requests, rate: Option<f64>) -> Result<Self> {
        let tasks = (CONNECTIONS * AT_A_TIME) as f64;
        let interval = rate.map(|rate| tasks * requests.spans as f64 / rate);
        let shared = Arc::new(Shared {
            requests: requests.clone(),
            port,
            interval: interval.map(Duration::from_secs_f64),
            acked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let connection = connect(port).await?;
            for task in 0..AT_A_TIME {
                tasks.spawn(send(Arc::clone(&shared), connection.clone(), task));
            }
        }
        Ok(Self { shared, tasks })
    }

    /// Spans taken so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Spans refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends it; gives how many spans were taken.
    pub async fn stop(mut self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.acked())
    }
}

async fn connect(port: u16) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.adaptive_window(true);
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await?;
    // Whoever sends over it hears of its end.
    tokio::spawn(async { drop(connection.await) });
    Ok(sender)
}

async fn send(
    shared: Arc<Shared>,
    mut connection: SendRequest<Full<Bytes>>,
    first: usize,
) -> Result<()> {
    let spans = shared.requests.spans as u64;
    let bodies = shared.requests.framed.iter().cycle().skip(first);
    let mut due = Instant::now();
    for body in bodies {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        if let Some(interval) = shared.interval {
            tokio::time::sleep_until(due.into()).await;
            due += interval;
        }
        if export(shared.port, &mut connection, body.clone()).await? {
            shared.acked.fetch_add(spans, Ordering::Relaxed);
        } else {
            shared.refused.fetch_add(spans, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Whether the spans were taken.
async fn export(port: u16, connection: &mut SendRequest<Full<Bytes>>, body: Bytes) -> Result<bool> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://127.0.0.1:{port}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))?;
    connection.ready().await?;
    let answer = connection.send_request(request).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().unwrap_or(&head.headers);
    let status = trailers.get("grpc-status").context("no grpc-status")?;
    Ok(status == "0")
}
