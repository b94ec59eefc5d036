//! OTLP over gRPC: one unary call a request, over one HTTP/2 connection.

mod channel;
mod codec;
mod config;

pub use config::OtlpGrpcSettings;

use super::connect::Connector;
use super::peer::{
    Compression, Headers, MAX_RESPONSE_BYTES, RpcStatus, USER_AGENT, accepted, chain, printable,
};
use crate::batch::Batch;
use crate::component::{BoxError, Context, Exporter, ExporterSettings};
use crate::queue::{Accepted, Client, Refusal, Retry, Sender};
use crate::receipt::NotTaken;
use crate::tls::ClientTlsSettings;
use async_trait::async_trait;
use bytes::Bytes;
use channel::GrpcOnly;
use codec::EncodedCodec;
use hyper::http::uri::PathAndQuery;
use std::error::Error;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

impl ExporterSettings for OtlpGrpcSettings {
    fn extension(&self) -> Option<(&'static str, &str)> {
        self.sending_queue.extension()
    }

    fn build(&self, context: Context) -> Result<Box<dyn Exporter>, BoxError> {
        let uri = self.uri()?;
        let secure = uri.scheme_str() == Some("https");
        let mut endpoint = Endpoint::from(uri)
            .user_agent(USER_AGENT)?
            .connect_timeout(self.timeout);
        if !self.keepalive.time.is_zero() {
            endpoint = endpoint
                .http2_keep_alive_interval(self.keepalive.time)
                .keep_alive_timeout(self.keepalive.timeout)
                .keep_alive_while_idle(self.keepalive.permit_without_stream);
        }
        let channel = Arc::new(OnceLock::new());
        let client = GrpcClient {
            channel: Arc::clone(&channel),
            metadata: metadata(&self.headers)?,
            compression: match self.compression {
                Compression::None => None,
                Compression::Gzip => Some(CompressionEncoding::Gzip),
                Compression::Zstd => Some(CompressionEncoding::Zstd),
            },
        };
        let retry = self.retry_on_failure.clone();
        let sender = Sender::new(
            &context,
            Box::new(client),
            self.timeout,
            self.sending_queue.clone(),
            retry,
        )?;
        Ok(Box::new(OtlpGrpc {
            endpoint,
            connector: Connector::new(self.timeout),
            tls: secure.then(|| self.tls.clone()),
            channel,
            sender,
        }))
    }
}

fn metadata(headers: &Headers) -> Result<MetadataMap, BoxError> {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        let name: AsciiMetadataKey = name.to_ascii_lowercase().parse()?;
        metadata.insert(name, value.0.parse()?);
    }
    Ok(metadata)
}

struct OtlpGrpc {
    endpoint: Endpoint,
    connector: Connector,
    /// None: plain text.
    tls: Option<ClientTlsSettings>,
    /// Set at the start, since a channel needs the runtime.
    channel: Arc<OnceLock<Channel>>,
    sender: Sender,
}

#[async_trait]
impl Exporter for OtlpGrpc {
    async fn start(&mut self) -> Result<(), BoxError> {
        if let Some(tls) = &self.tls {
            let loaded = self.connector.load_tls(tls, &[b"h2"]);
            loaded.map_err(|error| format!("tls::{error}"))?;
        }
        let connector = self.connector.clone();
        self.channel
            .get_or_init(|| self.endpoint.connect_with_connector_lazy(connector));
        self.sender.start().await
    }

    async fn consume(&self, batch: Arc<Batch>) -> Result<(), NotTaken> {
        self.sender.consume(&batch).await
    }

    async fn shutdown(&self, deadline: Instant) {
        self.sender.shutdown(deadline).await;
    }
}

struct GrpcClient {
    channel: Arc<OnceLock<Channel>>,
    metadata: MetadataMap,
    compression: Option<CompressionEncoding>,
}

#[async_trait]
impl Client for GrpcClient {
    async fn send(&self, body: Bytes) -> Result<Accepted, Refusal> {
        let Some(channel) = self.channel.get() else {
            return Err(Refusal {
                message: "not started".to_owned(),
                retry: Retry::Never,
            });
        };
        // Answers stay uncompressed: they are tiny, and their limit is easy to hold so.
        let mut grpc =
            Grpc::new(GrpcOnly(channel.clone())).max_decoding_message_size(MAX_RESPONSE_BYTES);
        if let Some(compression) = self.compression {
            grpc = grpc.send_compressed(compression);
        }
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        grpc.ready().await.map_err(|error| Refusal {
            message: chain(&*error),
            retry: Retry::Backoff,
        })?;
        let answer = grpc.unary(request, EXPORT, EncodedCodec).await;
        answer
            .map(|response| accepted(response.into_inner()))
            .map_err(|status| refusal(&status))
    }
}

/// The retry table of the OTLP specification.
fn refusal(status: &Status) -> Refusal {
    let details: Option<RpcStatus> = prost::Message::decode(status.details()).ok();
    let delay = details.and_then(|details| details.retry_delay());
    let backoff = delay.map_or(Retry::Backoff, Retry::After);
    let retry = match status.code() {
        // A connection that broke says nothing of the request; only a peer's own code does.
        _ if is_local(status) => Retry::Backoff,
        // An answer over the limit ends as OUT_OF_RANGE in tonic, but would be as long again.
        Code::OutOfRange if is_oversize(status) => Retry::Never,
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => backoff,
        Code::ResourceExhausted if delay.is_some() => backoff,
        _ => Retry::Never,
    };
    let source = status
        .source()
        .map(|source| format!(": {}", chain(source)))
        .unwrap_or_default();
    Refusal {
        message: printable(&format!(
            "{:?}: {}{source}",
            status.code(),
            status.message()
        )),
        retry,
    }
}

/// Made here from a transport error rather than sent by the peer.
fn is_local(status: &Status) -> bool {
    status.source().is_some()
}

fn is_oversize(status: &Status) -> bool {
    status
        .message()
        .starts_with("Error, decoded message length too large")
}
