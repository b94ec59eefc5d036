//! `GET /metrics` in the Prometheus text format.

use super::metrics::Metrics;
use crate::serve::{Page, Server};
use hyper::StatusCode;
use std::net::SocketAddr;

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {endpoint} (service::telemetry::metrics::readers)")]
pub struct ServeError {
    endpoint: String,
    source: std::io::Error,
}

/// Serves metrics until it is dropped.
#[derive(Debug)]
pub struct MetricsServer(Server);

impl MetricsServer {
    /// Opens the endpoint; port 0 takes any free one.
    pub async fn start(host: &str, port: u16, metrics: Metrics) -> Result<Self, ServeError> {
        let pages = move |path: &str| {
            (path == "/metrics").then(|| Page {
                status: StatusCode::OK,
                kind: "text/plain; version=0.0.4; charset=utf-8",
                body: metrics.text(),
            })
        };
        let server = Server::start(host, port, pages)
            .await
            .map_err(|source| ServeError {
                endpoint: format!("{host}:{port}"),
                source,
            })?;
        Ok(Self(server))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}
