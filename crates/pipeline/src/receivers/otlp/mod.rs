//! The `otlp` receiver: OTLP over gRPC and over HTTP.
//!
//! ```text
//! listener -> connection -> grpc | http -> body (limits) -> Batch, encoded -> deliver -> answer
//! ```
//! Bodies are looked through, not decoded, and an answer waits until the spans were taken over.

mod answer;
mod body;
mod config;
mod connection;
mod cors;
mod grpc;
mod http;
mod intake;
mod listener;
mod metrics;
mod rejection;

pub use config::OtlpReceiverSettings;

use crate::component::{BoxError, Context, Receiver, ReceiverSettings};
use crate::receiver::{BatchSender, Running};
use crate::tls::{self, ServerTlsSettings};
use body::{Budget, Limits};
use config::Protocols;
use connection::{Patience, Protocol};
use intake::Intake;
use listener::Listener;
use metrics::Counts;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

impl ReceiverSettings for OtlpReceiverSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Receiver>, BoxError> {
        Ok(Box::new(OtlpReceiver {
            protocols: self.protocols.clone(),
            context,
        }))
    }
}

struct OtlpReceiver {
    protocols: Protocols,
    context: Context,
}

/// What differs between the two ways in.
struct Way<'a> {
    name: &'static str,
    endpoint: &'a str,
    max_connections: usize,
    limits: Limits,
    patience: Patience,
    tls: Option<&'a ServerTlsSettings>,
    alpn: &'static [&'static [u8]],
    protocol: Protocol,
}

impl Receiver for OtlpReceiver {
    fn start(
        self: Box<Self>,
        output: BatchSender,
        stop: CancellationToken,
    ) -> Result<Running, BoxError> {
        let budget = Budget::default();
        let listeners: Result<Vec<_>, BoxError> = self
            .ways()
            .into_iter()
            .map(|way| self.open(way, &output, &budget))
            .collect();
        let mut running = tokio::task::JoinSet::new();
        for listener in listeners? {
            running.spawn(listener.run(stop.clone()));
        }
        // Only the listeners have it from here on: when they end, so do the pipelines.
        drop(output);
        Ok(Box::pin(async move {
            while let Some(ended) = running.join_next().await {
                ended?;
            }
            Ok(())
        }))
    }
}

impl OtlpReceiver {
    fn ways(&self) -> Vec<Way<'_>> {
        let grpc = self.protocols.grpc().map(|settings| {
            let parameters = &settings.keepalive.server_parameters;
            Way {
                name: "grpc",
                endpoint: &settings.endpoint,
                max_connections: settings.max_connections,
                limits: Limits {
                    bytes: settings.max_recv_msg_size_mib << 20,
                    time: settings.read_timeout,
                },
                patience: Patience {
                    first: settings.read_timeout,
                    idle: parameters.max_connection_idle,
                },
                tls: settings.tls.as_ref(),
                alpn: &[b"h2"],
                protocol: Protocol::Grpc(settings.clone()),
            }
        });
        let http = self.protocols.http().map(|settings| Way {
            name: "http",
            endpoint: &settings.endpoint,
            max_connections: settings.max_connections,
            limits: Limits {
                bytes: settings.max_request_body_size,
                time: settings.read_timeout,
            },
            patience: Patience {
                first: settings.read_header_timeout,
                idle: settings.idle_timeout,
            },
            tls: settings.tls.as_ref(),
            alpn: &[b"h2", b"http/1.1"],
            protocol: Protocol::Http(settings.clone()),
        });
        grpc.into_iter().chain(http).collect()
    }

    fn open(
        &self,
        way: Way<'_>,
        output: &BatchSender,
        budget: &Budget,
    ) -> Result<Listener, BoxError> {
        let key = format!("protocols::{}", way.name);
        let tls = way.tls.map(|settings| tls::server(settings, way.alpn));
        let tls = tls
            .transpose()
            .map_err(|error| format!("{key}::tls::{error}"))?;
        let sockets = listener::bind(way.endpoint).map_err(|error| {
            let endpoint = way.endpoint;
            format!("cannot listen on {endpoint} ({key}::endpoint): {error}")
        })?;
        let id = self.context.id.to_string();
        let counts = Counts::new(&self.context.metrics, &id, way.name);
        let intake = Intake {
            limits: way.limits,
            budget: budget.clone(),
            counts,
            output: output.over(way.name),
        };
        let server = connection::Server {
            tls,
            intake,
            patience: way.patience,
            protocol: way.protocol,
        };
        tracing::info!(receiver = id, endpoint = way.endpoint, "listening");
        Ok(Listener {
            sockets,
            max_connections: way.max_connections,
            server: Arc::new(server),
        })
    }
}
