//! OTLP over gRPC: the one unary call, on raw HTTP/2.
//!
//! By hand rather than by tonic's server: there a message above the limit ends as `OUT_OF_RANGE`,
//! which OTLP clients send again for ever, and every request is copied twice.

use super::answer::Answer;
use super::body::{self, Encoding, Limits, Share};
use super::intake::Intake;
use super::rejection::{Reason, Rejection};
use crate::batch::Batch;
use bytes::{Buf, Bytes};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tonic::Status;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// In front of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// An empty `ExportTraceServiceResponse` with its prefix.
const SUCCESS: Bytes = Bytes::from_static(&[0; PREFIX_BYTES]);

/// Answers one request.
pub async fn serve(request: Request<Incoming>, intake: &Intake) -> Response<Answer> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        // Not even gRPC (gRPC over HTTP2, "Requests").
        intake.counts.reject(Reason::ContentType);
        let mut response = Response::new(Answer::default());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    match take(request, intake).await {
        Ok(()) => {
            intake.counts.success.inc();
            success()
        }
        Err(rejection) => {
            intake.reject(&rejection);
            failure(&rejection)
        }
    }
}

async fn take(request: Request<Incoming>, intake: &Intake) -> Result<(), Rejection> {
    if request.method() != Method::POST {
        return Err(Rejection::new(Reason::Method, "only POST"));
    }
    let path = request.uri().path();
    if path != EXPORT {
        let message = format!("{path} is not here, only {EXPORT}");
        return Err(Rejection::new(Reason::Path, message));
    }
    let encoding = request.headers().get("grpc-encoding");
    let encoding = Encoding::parse(encoding.map(HeaderValue::as_bytes).unwrap_or_default())?;
    let limits = Limits {
        bytes: intake.limits.bytes + PREFIX_BYTES,
        ..intake.limits
    };
    let mut share = intake.budget.share();
    let frame = body::read(request.into_body(), limits, &mut share).await?;
    let (message, _share) = message(frame, encoding, intake.limits.bytes, share).await?;
    let batch = Batch::encoded(message)
        .map_err(|error| Rejection::new(Reason::Malformed, error.to_string()))?;
    intake.deliver(batch).await
}

/// The one message of a unary call.
async fn message(
    mut frame: Bytes,
    encoding: Encoding,
    limit: usize,
    share: Share,
) -> Result<(Bytes, Share), Rejection> {
    let malformed = |message: String| Rejection::new(Reason::Malformed, message);
    if frame.len() < PREFIX_BYTES {
        return Err(malformed("no message in the request".to_owned()));
    }
    let flag = frame.get_u8();
    let length = usize::try_from(frame.get_u32()).unwrap_or(usize::MAX);
    if length > limit {
        return Err(Rejection::too_large(limit));
    }
    if length != frame.len() {
        let there = frame.len();
        return Err(malformed(format!(
            "{length} bytes are promised, {there} are there"
        )));
    }
    match (flag, encoding) {
        (0, _) => Ok((frame, share)),
        (1, Encoding::Identity) => Err(malformed(
            "compressed, but grpc-encoding does not say how".to_owned(),
        )),
        (1, encoding) => body::decompress(frame, encoding, limit, share).await,
        (flag, _) => Err(malformed(format!("compression flag {flag} is unknown"))),
    }
}

fn success() -> Response<Answer> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Answer::of(SUCCESS).with_trailers(trailers));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

fn failure(rejection: &Rejection) -> Response<Answer> {
    let status = Status::new(rejection.reason.code(), rejection.message.as_str());
    let mut response = Response::new(Answer::default());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    if status.add_header(headers).is_err() {
        // A text that no header can carry.
        headers.insert("grpc-status", HeaderValue::from(i32::from(status.code())));
    }
    if rejection.reason == Reason::Encoding {
        let accepted = HeaderValue::from_static(Encoding::ACCEPTED);
        headers.insert("grpc-accept-encoding", accepted);
    }
    response
}
