//! Backends that answer as a script says, one answer a request, the last one for ever.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub trailers: Vec<(&'static str, String)>,
    /// Before the answer begins.
    pub delay: Duration,
    /// Closes the connection instead.
    pub hang_up: bool,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A peer and what it saw.
pub struct Peer {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Peer {
    pub async fn http(script: Vec<Answer>) -> Self {
        Self::start(script, false).await
    }

    pub async fn grpc(script: Vec<Answer>) -> Self {
        Self::start(script, true).await
    }

    async fn start(script: Vec<Answer>, http2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (script.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, script.clone(), Arc::clone(&log))
                    });
                    let io = TokioIo::new(stream);
                    // A connection that ends with an error is what some scripts ask for.
                    if http2 {
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = server.serve_connection(io, service).await;
                    } else {
                        let server = hyper::server::conn::http1::Builder::new();
                        let _ = server.serve_connection(io, service).await;
                    }
                });
            }
        });
        Self { port, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Vec<Answer>,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let number = {
        let mut log = log.lock().unwrap();
        let path = head.uri.path().to_owned();
        log.push(Seen {
            at: Instant::now(),
            path,
            headers: head.headers,
            body,
        });
        log.len() - 1
    };
    let answer = script
        .get(number)
        .or(script.last())
        .cloned()
        .unwrap_or_default();
    tokio::time::sleep(answer.delay).await;
    if answer.hang_up {
        return Err(std::io::Error::other("hangs up"));
    }
    let mut trailers = HeaderMap::new();
    for (name, value) in answer.trailers {
        trailers.insert(name, value.parse().unwrap());
    }
    let trailers = (!trailers.is_empty()).then_some(Ok(trailers));
    let body = Full::new(answer.body)
        .with_trailers(async { trailers })
        .boxed_unsync();
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(body).unwrap())
}
