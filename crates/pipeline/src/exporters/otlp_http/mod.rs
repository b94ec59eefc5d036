//! OTLP over HTTP/1.1 with protobuf bodies.

mod config;

pub use config::OtlpHttpSettings;

use super::connect::Connector;
use super::peer::{
    Compression, MAX_RESPONSE_BYTES, RpcStatus, USER_AGENT, accepted, chain, printable,
};
use crate::batch::Batch;
use crate::clock;
use crate::component::{BoxError, Context, Exporter, ExporterSettings};
use crate::queue::{Accepted, Client, Refusal, Retry, Sender};
use crate::receipt::NotTaken;
use crate::tls::ClientTlsSettings;
use async_trait::async_trait;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// Idle connections are dropped before usual servers and balancers drop them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

impl ExporterSettings for OtlpHttpSettings {
    fn extension(&self) -> Option<(&'static str, &str)> {
        self.sending_queue.extension()
    }

    fn build(&self, context: Context) -> Result<Box<dyn Exporter>, BoxError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        let encoding = match self.compression {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        };
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        for (name, value) in &self.headers {
            headers.insert(
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(&value.0)?,
            );
        }
        let url = self.url().map_err(|(_, message)| message)?;
        let secure = url.scheme_str() == Some("https");
        let http = Arc::new(OnceLock::new());
        let client = OtlpClient {
            http: Arc::clone(&http),
            url,
            headers,
            compression: self.compression,
        };
        let retry = self.retry_on_failure.clone();
        let sender = Sender::new(
            &context,
            Box::new(client),
            self.timeout,
            self.sending_queue.clone(),
            retry,
        )?;
        Ok(Box::new(OtlpHttp {
            connector: Connector::new(self.timeout),
            tls: secure.then(|| self.tls.clone()),
            http,
            sender,
        }))
    }
}

type Http = HttpClient<Connector, Full<Bytes>>;

struct OtlpHttp {
    connector: Connector,
    /// None: plain text.
    tls: Option<ClientTlsSettings>,
    /// Set at the start, when the files of TLS are read.
    http: Arc<OnceLock<Http>>,
    sender: Sender,
}

#[async_trait]
impl Exporter for OtlpHttp {
    async fn start(&mut self) -> Result<(), BoxError> {
        if let Some(tls) = &self.tls {
            let loaded = self.connector.load_tls(tls, &[b"http/1.1"]);
            loaded.map_err(|error| format!("tls::{error}"))?;
        }
        self.http.get_or_init(|| {
            HttpClient::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .build(self.connector.clone())
        });
        self.sender.start().await
    }

    async fn consume(&self, batch: Arc<Batch>) -> Result<(), NotTaken> {
        self.sender.consume(&batch).await
    }

    async fn shutdown(&self, deadline: Instant) {
        self.sender.shutdown(deadline).await;
    }
}

struct OtlpClient {
    http: Arc<OnceLock<Http>>,
    url: Uri,
    headers: HeaderMap,
    compression: Compression,
}

#[async_trait]
impl Client for OtlpClient {
    fn encode(&self, body: Bytes) -> Bytes {
        match self.compression {
            Compression::None => body,
            Compression::Gzip => {
                let buffer = Vec::with_capacity(body.len() / 4);
                let mut encoder = GzEncoder::new(buffer, flate2::Compression::fast());
                // Writing to memory does not fail.
                let _ = encoder.write_all(&body);
                encoder.finish().map(Bytes::from).unwrap_or_default()
            }
            Compression::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                let encoded = zstd::bulk::compress(&body, level);
                encoded.map(Bytes::from).unwrap_or_default()
            }
        }
    }

    async fn send(&self, body: Bytes) -> Result<Accepted, Refusal> {
        let Some(http) = self.http.get() else {
            return Err(never("not started"));
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        match http.request(request).await {
            Ok(response) => read(response).await,
            Err(error) => Err(Refusal {
                message: printable(&chain(&error)),
                retry: Retry::Backoff,
            }),
        }
    }
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<Accepted, Refusal> {
    let (head, body) = response.into_parts();
    let body = match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(never(&format!(
                "answered {} with more than {MAX_RESPONSE_BYTES} bytes",
                head.status
            )));
        }
        Err(error) => {
            return Err(Refusal {
                message: printable(&format!("answer broke off: {error}")),
                retry: Retry::Backoff,
            });
        }
    };
    let kind = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if head.status.is_success() {
        return success(head.status, &kind, &body);
    }
    let reason = match RpcStatus::decode(body.as_ref()) {
        Ok(status) if kind == "application/x-protobuf" => status.message,
        _ => String::from_utf8_lossy(&body).into_owned(),
    };
    let retry = match head.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            retry_after(&head.headers).map_or(Retry::Backoff, Retry::After)
        }
        _ => Retry::Never,
    };
    Err(Refusal {
        message: printable(&format!("answered {}: {reason}", head.status)),
        retry,
    })
}

/// A page of some proxy with status 200 is no proof that the spans have arrived.
fn success(status: StatusCode, kind: &str, body: &Bytes) -> Result<Accepted, Refusal> {
    if body.is_empty() {
        return Ok(Accepted::default());
    }
    let response = match kind {
        "application/x-protobuf" => ExportTraceServiceResponse::decode(body.as_ref()).ok(),
        "application/json" => json_response(body),
        _ => None,
    };
    let nonsense = || {
        never(&format!(
            "answered {status} with a body that is no OTLP ({kind})"
        ))
    };
    response.map(accepted).ok_or_else(nonsense)
}

/// By hand: `opentelemetry-proto` reads no 64-bit number from a text here, as JSON has it.
fn json_response(body: &[u8]) -> Option<ExportTraceServiceResponse> {
    let response: serde_json::Value = serde_json::from_slice(body).ok()?;
    let partial = response
        .as_object()?
        .get("partialSuccess")
        .filter(|partial| !partial.is_null());
    let partial_success = partial.map(|partial| {
        let rejected = partial.get("rejectedSpans");
        let number = rejected.and_then(serde_json::Value::as_i64);
        let text = rejected.and_then(|text| text.as_str()?.parse().ok());
        let message = partial
            .get("errorMessage")
            .and_then(serde_json::Value::as_str);
        ExportTracePartialSuccess {
            rejected_spans: number.or(text).unwrap_or(0),
            error_message: message.unwrap_or_default().to_owned(),
        }
    });
    Some(ExportTraceServiceResponse { partial_success })
}

fn never(message: &str) -> Refusal {
    Refusal {
        message: printable(message),
        retry: Retry::Never,
    }
}

/// Seconds or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(clock::wall()).unwrap_or_default())
}
