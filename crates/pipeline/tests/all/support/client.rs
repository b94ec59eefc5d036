//! Clients that say to the `otlp` receiver whatever a test wants.

use super::peer::{Answer, Peer};
use super::{free_port, service};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pipeline::telemetry::{Metrics, Sample};
use prost::Message;
use tokio::net::TcpStream;

pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// A receiver at work, in front of a backend.
pub struct Served {
    pub grpc: u16,
    pub http: u16,
    pub metrics: Metrics,
    pub backend: Peer,
}

/// Runs a receiver with these settings below `grpc` and `http`, in front of an `otlp_http`
/// exporter with these settings, until the test has ended; gives the metrics at the end.
pub async fn with_receiver<F: Future<Output = ()>>(
    settings: (&str, &str),
    exporter: &str,
    backend: Vec<Answer>,
    test: impl FnOnce(Served) -> F,
) -> Vec<Sample> {
    let (grpc, http) = (free_port(), free_port());
    let backend = Peer::http(backend).await;
    let yaml = format!(
        "receivers:\n  otlp:\n    protocols:\n      \
         grpc: {{endpoint: 'localhost:{grpc}', {}}}\n      \
         http: {{endpoint: 'localhost:{http}', {}}}\n\
         exporters:\n  otlp_http: {{endpoint: 'http://127.0.0.1:{}', compression: none, {exporter}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  shutdown_timeout: 2s\n  \
         pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}\n",
        settings.0, settings.1, backend.port
    );
    let metrics = Metrics::default();
    let served = Served {
        grpc,
        http,
        metrics: metrics.clone(),
        backend,
    };
    let test = async {
        wait_for_port(http).await;
        test(served).await;
    };
    service(&yaml, &metrics).run(test).await.unwrap().samples
}

/// Until something listens.
pub async fn wait_for_port(port: u16) {
    for _ in 0..1_000 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("nobody listens on {port}");
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).or(self.trailers.get(name));
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The gRPC code, wherever it stands.
    pub fn code(&self) -> i32 {
        self.header("grpc-status").parse().unwrap_or(-1)
    }
}

/// A request of any kind, over HTTP/1.1 or HTTP/2.
pub struct Call<'a> {
    pub method: Method,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: Bytes,
    pub http2: bool,
}

impl Call<'_> {
    pub async fn send(self, port: u16) -> Reply {
        let io = TokioIo::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("http://localhost:{port}{}", self.path))
            .header("host", format!("localhost:{port}"));
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(self.body)).unwrap();
        let response = if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let (head, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            trailers: collected.trailers().cloned().unwrap_or_default(),
            body: collected.to_bytes(),
        }
    }
}

/// `POST /v1/traces`
pub async fn post(port: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let call = Call {
        method: Method::POST,
        path: "/v1/traces",
        headers,
        body: body.into(),
        http2: false,
    };
    call.send(port).await
}

/// A gRPC call with these bytes behind its headers.
pub async fn call(port: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let all = [
        &[("content-type", "application/grpc"), ("te", "trailers")],
        headers,
    ]
    .concat();
    let call = Call {
        method: Method::POST,
        path: EXPORT,
        headers: &all,
        body: body.into(),
        http2: true,
    };
    call.send(port).await
}

/// A message as gRPC frames it.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// The code and text of a `google.rpc.Status` in protobuf.
pub fn rpc_status(reply: &Reply) -> (i32, String) {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let status = Status::decode(reply.body.clone()).unwrap();
    (status.code, status.message)
}
