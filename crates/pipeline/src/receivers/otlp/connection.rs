//! One connection: TLS, HTTP, and its end when nothing comes any more.

use super::config::{GrpcSettings, HttpSettings};
use super::intake::Intake;
use super::{grpc, http};
use crate::clock;
use crate::tls::Reloaded;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::fmt::Display;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection that is told to end to end.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Bytes of one request, of one connection, and of one frame that may come at once: larger
/// than HTTP/2's defaults, so that a request is few pieces and a client waits for no window.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
const FRAME_BYTES: u32 = 256 << 10;
/// HTTP/2 requests at the same time on one connection of the HTTP endpoint.
const HTTP_STREAMS: u32 = 100;

/// What a connection speaks.
pub enum Protocol {
    Grpc(GrpcSettings),
    Http(HttpSettings),
}

/// How long a connection may stay without a request.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Before the first.
    pub first: Duration,
    /// After the last; zero: for ever.
    pub idle: Duration,
}

/// Serves the connections of one endpoint.
pub struct Server {
    pub tls: Option<Reloaded<ServerConfig>>,
    pub intake: Intake,
    pub patience: Patience,
    pub protocol: Protocol,
}

impl Server {
    /// Until the client or the service ends the connection.
    pub async fn converse(self: &Arc<Self>, stream: TcpStream, stop: &CancellationToken) {
        // Only small answers might wait longer without it.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.speak(stream, stop).await;
        };
        let handshake = TlsAcceptor::from(tls.get()).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => self.speak(stream, stop).await,
            Ok(Err(error)) => {
                self.intake.counts.tls_failed.inc();
                tracing::debug!(%error, "TLS handshake failed");
            }
            Err(_) => self.intake.counts.tls_failed.inc(),
        }
    }

    async fn speak<S>(self: &Arc<Self>, stream: S, stop: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        let activity = Arc::new(Activity::new());
        let service = {
            let (server, activity) = (Arc::clone(self), Arc::clone(&activity));
            service_fn(move |request: Request<Incoming>| {
                let server = Arc::clone(&server);
                let under_way = activity.begin();
                async move {
                    let answer = match &server.protocol {
                        Protocol::Grpc(_) => grpc::serve(request, &server.intake).await,
                        Protocol::Http(settings) => {
                            http::serve(request, &server.intake, settings).await
                        }
                    };
                    drop(under_way);
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        match &self.protocol {
            Protocol::Grpc(settings) => {
                let connection = grpc_builder(settings).serve_connection(io, service);
                self.watch(connection, &activity, stop).await;
            }
            Protocol::Http(settings) => {
                let builder = http_builder(settings);
                let connection = builder.serve_connection(io, service);
                self.watch(connection, &activity, stop).await;
            }
        }
    }

    /// Drives a connection, and ends it when the service stops or nothing comes.
    async fn watch<C>(&self, connection: C, activity: &Activity, stop: &CancellationToken)
    where
        C: GracefulConnection,
        C::Error: Display,
    {
        let mut connection = pin!(connection);
        let mut stopping = false;
        loop {
            let deadline = activity.deadline(self.patience);
            let idle = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = idle => {
                    let now = activity.deadline(self.patience);
                    if now.is_some_and(|deadline| deadline <= clock::instant()) {
                        self.intake.counts.idle.inc();
                        connection.as_mut().graceful_shutdown();
                        // Whether it says goodbye in time or not, it ends.
                        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, connection).await;
                        return;
                    }
                }
            }
        }
    }
}

fn grpc_builder(settings: &GrpcSettings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let parameters = &settings.keepalive.server_parameters;
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .keep_alive_interval(parameters.time)
        .keep_alive_timeout(parameters.timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES);
    builder
}

fn http_builder(settings: &HttpSettings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.read_header_timeout)
        // A client that has said all it wanted still gets its answer.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES);
    builder
}

/// When a connection last had a request under way.
struct Activity(Mutex<Seen>);

struct Seen {
    under_way: usize,
    any: bool,
    last: Instant,
}

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(Seen {
            under_way: 0,
            any: false,
            last: clock::instant(),
        }))
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        self.change(|seen| {
            seen.under_way += 1;
            seen.any = true;
        });
        UnderWay(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut seen);
        seen.last = clock::instant();
    }

    /// When patience ends, if nothing happens until then.
    fn deadline(&self, patience: Patience) -> Option<Instant> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = if seen.any {
            patience.idle
        } else {
            patience.first
        };
        let since = if seen.under_way > 0 {
            clock::instant()
        } else {
            seen.last
        };
        (!limit.is_zero()).then(|| since + limit)
    }
}

/// A request under way.
struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.change(|seen| seen.under_way -= 1);
    }
}
