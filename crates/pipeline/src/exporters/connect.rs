//! Connections to a backend, with TLS where its URL says `https`.

use crate::component::BoxError;
use crate::tls::{ClientTlsSettings, Reloaded, TlsError, client};
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;

/// Makes connections; a clone makes them in the same way.
#[derive(Clone, Debug)]
pub struct Connector {
    tcp: HttpConnector,
    tls: Option<Arc<Tls>>,
    timeout: Duration,
}

#[derive(Debug)]
struct Tls {
    config: Reloaded<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl Connector {
    /// Plain text only, until TLS is loaded.
    pub fn new(timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_nodelay(true);
        Self {
            tcp,
            tls: None,
            timeout,
        }
    }

    /// Reads the files that TLS needs, for a protocol as ALPN names it.
    pub fn load_tls(
        &mut self,
        settings: &ClientTlsSettings,
        alpn: &'static [&'static [u8]],
    ) -> Result<(), TlsError> {
        self.tls = Some(Arc::new(Tls {
            config: client(settings, alpn)?,
            name: settings.server_name()?,
        }));
        Ok(())
    }
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().to_owned();
        let tcp = self.tcp.call(uri);
        let (tls, timeout) = (self.tls.clone(), self.timeout);
        Box::pin(async move {
            let stream = tcp.await?.into_inner();
            if !secure {
                return Ok(Link::new(stream));
            }
            // Never plain text where TLS is wanted.
            let tls = tls.ok_or("TLS is wanted and was not loaded")?;
            let shake = handshake(&tls, &host, stream);
            tokio::time::timeout(timeout, shake)
                .await
                .map_err(|_| format!("no TLS handshake within {timeout:?}"))?
        })
    }
}

async fn handshake(tls: &Tls, host: &str, stream: tokio::net::TcpStream) -> Result<Link, BoxError> {
    let name = if let Some(name) = &tls.name {
        name.clone()
    } else {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(host.to_owned())?
    };
    let connector = TlsConnector::from(tls.config.get());
    let stream = connector.connect(name, stream).await.map_err(|error| {
        let plain = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|inner| matches!(inner, rustls::Error::InvalidMessage(_)));
        let hint = if plain {
            ", it seems to speak plain text: http:// or tls::insecure would do so too"
        } else {
            ""
        };
        format!("TLS handshake failed: {error}{hint}")
    })?;
    Ok(Link::new(stream))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection of either kind.
pub struct Link(TokioIo<Box<dyn Stream>>);

impl Link {
    fn new(stream: impl Stream + 'static) -> Self {
        Self(TokioIo::new(Box::new(stream)))
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
