//! Why a request is not taken, and how OTLP says so over HTTP and gRPC (specification 2.1 to 2.3).

use crate::receiver::Undelivered;
use hyper::StatusCode;
use tonic::Code;

/// A closed list: every request that is not taken is counted under one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a path that takes spans.
    Path,
    /// Not a POST.
    Method,
    /// Neither protobuf nor JSON.
    ContentType,
    /// Compressed in a way that we do not know.
    Encoding,
    /// Does not decode, or has ids of a wrong length.
    Malformed,
    /// Above the limit, before or after decompression.
    TooLarge,
    /// Did not arrive in time.
    Timeout,
    /// Broke off.
    BrokenOff,
    /// Requests under way have all the memory they may have.
    Busy,
    /// The pipelines took it not now.
    Pipelines,
    /// The pipelines will never take it.
    Unacceptable,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Path,
        Self::Method,
        Self::ContentType,
        Self::Encoding,
        Self::Malformed,
        Self::TooLarge,
        Self::Timeout,
        Self::BrokenOff,
        Self::Busy,
        Self::Pipelines,
        Self::Unacceptable,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::Encoding => "encoding",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::BrokenOff => "broken_off",
            Self::Busy => "busy",
            Self::Pipelines => "pipelines",
            Self::Unacceptable => "unacceptable",
        }
    }

    /// The status over HTTP. Clients send again after 503 and after no other of these.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Malformed | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // Not 408, which OTLP forbids to send again: a slow network is no fault of the spans.
            Self::Timeout | Self::Busy | Self::Pipelines => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unacceptable => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The status over gRPC. Clients send again after `UNAVAILABLE` and `DEADLINE_EXCEEDED`.
    pub fn code(self) -> Code {
        match self {
            Self::Path | Self::Method | Self::Encoding => Code::Unimplemented,
            Self::ContentType | Self::Malformed => Code::InvalidArgument,
            // Without RetryInfo, so that it is not sent again.
            Self::TooLarge => Code::ResourceExhausted,
            Self::Timeout => Code::DeadlineExceeded,
            Self::BrokenOff => Code::Cancelled,
            Self::Busy | Self::Pipelines => Code::Unavailable,
            Self::Unacceptable => Code::Internal,
        }
    }
}

/// A request that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    /// For the client.
    pub message: String,
}

impl Rejection {
    /// With a text for the client.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }

    /// More bytes than the limit.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            Reason::TooLarge,
            format!("above the limit of {limit} bytes"),
        )
    }
}

impl From<Undelivered> for Rejection {
    fn from(undelivered: Undelivered) -> Self {
        let reason = if undelivered.retryable {
            Reason::Pipelines
        } else {
            Reason::Unacceptable
        };
        Self::new(reason, undelivered.message)
    }
}
