//! A backend that counts spans and says yes.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long what was taken may be under way.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);
const PREFIX_BYTES: usize = 5;

/// Listens until it is dropped.
pub struct Backend {
    pub port: u16,
    spans: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Backend {
    /// On a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let spans = Arc::default();
        let task = tokio::spawn(listen(listener, Arc::clone(&spans)));
        Ok(Self { port, spans, task })
    }

    /// Spans so far.
    pub fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }

    /// Waits until exactly so many have come.
    pub async fn wait_for(&self, expected: u64) -> Result<()> {
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        while self.spans() < expected && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let arrived = self.spans();
        ensure!(
            arrived == expected,
            "{expected} spans were taken, {arrived} arrived"
        );
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, spans: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, Arc::clone(&spans)));
    }
}

async fn answer(stream: TcpStream, spans: Arc<AtomicU64>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let spans = Arc::clone(&spans);
        async move {
            if let Ok(body) = request.into_body().collect().await {
                let counted = count(&body.to_bytes()).unwrap_or(0);
                spans.fetch_add(counted, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(taken())
        }
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.adaptive_window(true);
    // The client has ended it.
    drop(server.serve_connection(TokioIo::new(stream), service).await);
}

fn taken() -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>> {
    let trailers = HeaderMap::from_iter([(
        hyper::header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let empty = Bytes::from_static(&[0; PREFIX_BYTES]);
    let body = Full::new(empty).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// Spans of a framed `ExportTraceServiceRequest`, compressed with gzip or not: its field 1 has a
/// field 2, which has a field 2 for each.
fn count(framed: &[u8]) -> Option<u64> {
    let (prefix, message) = framed.split_first_chunk::<PREFIX_BYTES>()?;
    let mut request = Vec::new();
    if prefix.first() == Some(&1) {
        GzDecoder::new(message).read_to_end(&mut request).ok()?;
    } else {
        request.extend_from_slice(message);
    }
    let resources = fields(&request, 1);
    let scopes = resources.flat_map(|resource| fields(resource, 2));
    Some(scopes.map(|scope| fields(scope, 2).count() as u64).sum())
}

/// The messages of this field. Every field of the messages above has a length.
fn fields(mut message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let tag = varint(&mut message)?;
            let length = usize::try_from(varint(&mut message)?).ok()?;
            let (value, rest) = message.split_at_checked(length)?;
            message = rest;
            if tag >> 3 == wanted {
                return Some(value);
            }
        }
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
