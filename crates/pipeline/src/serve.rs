//! A small HTTP server for pages that the process shows of itself: metrics, health.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Clients at a time; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 32;
/// A client that sends no request in this time is hung up on.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives no longer than this.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(5);

/// What is shown at one path.
pub struct Page {
    pub status: StatusCode,
    /// `Content-Type`
    pub kind: &'static str,
    pub body: String,
}

/// Gives the page at a path, if there is one.
type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// Where to listen. `localhost` is the loopback interface even where nothing knows the name
/// (RFC 6761 section 6.3).
pub fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match (host, port).to_socket_addrs() {
        Ok(known) => Ok(known.collect()),
        Err(_) if host == "localhost" => Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]),
        Err(error) => Err(error),
    }
}

/// Serves pages until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Opens the endpoint; port 0 takes any free one.
    pub async fn start(
        host: &str,
        port: u16,
        pages: impl Fn(&str) -> Option<Page> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(&addresses(host, port)?[..]).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, Arc::new(pages)));
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `host:port` or `[address]:port`, taken apart.
pub fn host_and_port(endpoint: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("\"{endpoint}\" is not host:port, such as localhost:13133");
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    if host.is_empty() || (bracketed.is_none() && host.contains(':')) {
        return Err(wrong());
    }
    Ok((host, port))
}

async fn accept(listener: TcpListener, pages: Pages) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, converse(stream, pages)).await;
                    drop(slot);
                });
            }
            // Out of descriptors, most likely: wait for some to be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn converse(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &pages);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection of a reader of metrics or health ended");
    }
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let page = match (pages(request.uri().path()), request.method()) {
        (Some(page), &Method::GET | &Method::HEAD) => page,
        (Some(_), _) => Page {
            status: StatusCode::METHOD_NOT_ALLOWED,
            kind: TEXT,
            body: String::new(),
        },
        (None, _) => Page {
            status: StatusCode::NOT_FOUND,
            kind: TEXT,
            body: "there is nothing at this path\n".to_owned(),
        },
    };
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    let kind = header::HeaderValue::from_static(page.kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_taken_apart() {
        for (endpoint, expected) in [
            ("localhost:13133", Some(("localhost", 13133))),
            ("0.0.0.0:0", Some(("0.0.0.0", 0))),
            ("[::1]:80", Some(("::1", 80))),
            ("localhost", None),
            (":80", None),
            ("::1:80", None),
            ("localhost:99999", None),
        ] {
            assert_eq!(host_and_port(endpoint).ok(), expected, "{endpoint}");
        }
    }
}
