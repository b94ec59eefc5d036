//! OTLP over HTTP: protobuf and JSON, on one path.

use super::answer::Answer;
use super::body::{self, Encoding};
use super::config::HttpSettings;
use super::intake::Intake;
use super::rejection::{Reason, Rejection};
use crate::batch::Batch;
use crate::exporters::RpcStatus;
use crate::wire;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use prost::Message;

/// Seconds after which a client may try again.
const RETRY_AFTER: u32 = 1;

/// How a request, and so its answer, is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    fn content_type(format: Option<Self>) -> HeaderValue {
        HeaderValue::from_static(match format {
            Some(Self::Protobuf) => "application/x-protobuf",
            Some(Self::Json) => "application/json",
            None => "text/plain; charset=utf-8",
        })
    }
}

/// Answers one request.
pub async fn serve(
    request: Request<Incoming>,
    intake: &Intake,
    settings: &HttpSettings,
) -> Response<Answer> {
    let mut headers = HeaderMap::new();
    if is_preflight(&request, settings) {
        let mut response = Response::new(Answer::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        settings
            .cors
            .preflight(request.headers(), response.headers_mut());
        return response;
    }
    settings.cors.allow(request.headers(), &mut headers);
    let format = Format::of(request.headers());
    let version = request.version();
    let mut response = match take(request, format, intake, settings).await {
        Ok(()) => {
            intake.counts.success.inc();
            success(format)
        }
        Err(rejection) => {
            intake.reject(&rejection);
            failure(&rejection, format)
        }
    };
    if version < Version::HTTP_2 && leaves_body_unread(response.status()) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.headers_mut().extend(headers);
    response
}

/// What has not been read of the request is not waited for.
fn leaves_body_unread(status: StatusCode) -> bool {
    status == StatusCode::PAYLOAD_TOO_LARGE || status == StatusCode::SERVICE_UNAVAILABLE
}

fn is_preflight(request: &Request<Incoming>, settings: &HttpSettings) -> bool {
    request.method() == Method::OPTIONS
        && !settings.cors.allowed_origins.is_empty()
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

async fn take(
    request: Request<Incoming>,
    format: Option<Format>,
    intake: &Intake,
    settings: &HttpSettings,
) -> Result<(), Rejection> {
    let path = request.uri().path();
    if path != settings.traces_url_path {
        let expected = &settings.traces_url_path;
        let message = format!("{path} is not here, only {expected}");
        return Err(Rejection::new(Reason::Path, message));
    }
    if request.method() != Method::POST {
        return Err(Rejection::new(Reason::Method, "only POST"));
    }
    let Some(format) = format else {
        let message = "Content-Type must be application/x-protobuf or application/json";
        return Err(Rejection::new(Reason::ContentType, message));
    };
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    let encoding = Encoding::parse(encoding.map(HeaderValue::as_bytes).unwrap_or_default())?;
    let mut share = intake.budget.share();
    let body = body::read(request.into_body(), intake.limits, &mut share).await?;
    let limit = intake.limits.bytes;
    let (body, _share) = body::decompress(body, encoding, limit, share).await?;
    intake.deliver(decode(body, format)?).await
}

fn decode(body: Bytes, format: Format) -> Result<Batch, Rejection> {
    let malformed = |message: String| Rejection::new(Reason::Malformed, message);
    let body = match format {
        Format::Protobuf => body,
        Format::Json => wire::from_json(&body)
            .map(Bytes::from)
            .map_err(|error| malformed(error.to_string()))?,
    };
    Batch::encoded(body).map_err(|error| malformed(error.to_string()))
}

/// An `ExportTraceServiceResponse` with nothing set.
fn success(format: Option<Format>) -> Response<Answer> {
    let body: &'static [u8] = if format == Some(Format::Json) {
        b"{}"
    } else {
        b""
    };
    let mut response = Response::new(Answer::of(Bytes::from_static(body)));
    let kind = Format::content_type(format);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A `google.rpc.Status` as the request was written, or a text if that is not known.
fn failure(rejection: &Rejection, format: Option<Format>) -> Response<Answer> {
    let status = RpcStatus {
        code: rejection.reason.code().into(),
        message: rejection.message.clone(),
        details: Vec::new(),
    };
    let body = match format {
        Some(Format::Protobuf) => Bytes::from(status.encode_to_vec()),
        Some(Format::Json) => {
            let json = serde_json::json!({"code": status.code, "message": status.message});
            Bytes::from(json.to_string())
        }
        None => Bytes::from(format!("{}\n", rejection.message)),
    };
    let mut response = Response::new(Answer::of(body));
    *response.status_mut() = rejection.reason.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, Format::content_type(format));
    match rejection.reason {
        Reason::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        Reason::Encoding => {
            let accepted = HeaderValue::from_static(Encoding::ACCEPTED);
            headers.insert(header::ACCEPT_ENCODING, accepted);
        }
        reason if reason.status() == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER.into());
        }
        _ => {}
    }
    response
}
