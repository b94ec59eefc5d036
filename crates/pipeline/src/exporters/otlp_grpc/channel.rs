//! A channel that looks at an answer before it is decoded: what a proxy says instead of the
//! backend counts by its HTTP status (gRPC's doc/http-grpc-status-mapping.md), not by its page.

use crate::component::BoxError;
use crate::exporters::peer::printable;
use hyper::{Request, Response, StatusCode, header};
use std::pin::Pin;
use std::task::{self, Poll};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Lets only gRPC answers through; any other becomes a [`Status`].
pub struct GrpcOnly(pub Channel);

impl Service<Request<Body>> for GrpcOnly {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await?;
            match refusal(&response) {
                None => Ok(response),
                Some(status) => Err(status.into()),
            }
        })
    }
}

fn refusal(response: &Response<Body>) -> Option<Status> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let http = response.status();
    if http == StatusCode::OK && kind.starts_with("application/grpc") {
        return None;
    }
    let code = match http {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    Some(Status::new(
        code,
        printable(&format!("answered {http} ({kind}), which is no gRPC")),
    ))
}
