//! Tasks that move between threads: hyper as server and client on tokio's runtime of several
//! threads, and a pool of connections to Redis.
//!
//! usage: `live_tokio` PORT STOCK PRICE SHIP REDIS

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Nobody stores anything, so this is what Redis answers.
const NIL: &[u8] = b"$-1\r\n";
/// More threads than the machine has processors would only wait.
const THREADS: usize = 4;

struct Shop {
    http: Client<HttpConnector, Full<Bytes>>,
    idle: Mutex<Vec<TcpStream>>,
    stock: u16,
    price: u16,
    ship: u16,
    redis: u16,
}

impl Shop {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let body = request.into_body().collect().await?.to_bytes();
        self.post(self.stock, "/stock", &body).await?;
        tokio::try_join!(
            self.post(self.price, "/price", &body),
            self.redis_get(&body)
        )?;
        if body.last().is_some_and(|digit| digit % 2 == 0) {
            self.post(self.ship, "/ship", &body).await?;
        }
        Ok(Response::new(Full::from("ok\n")))
    }

    async fn post(&self, port: u16, path: &str, body: &Bytes) -> Result<()> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://127.0.0.1:{port}{path}"))
            .body(Full::from(body.clone()))?;
        let response = self.http.request(request).await?;
        response.into_body().collect().await?;
        Ok(())
    }

    async fn redis_get(&self, id: &Bytes) -> Result<()> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => TcpStream::connect((Ipv4Addr::LOCALHOST, self.redis)).await?,
        };
        let key = [b"key:", &id[..]].concat();
        let mut command = format!("*2\r\n$3\r\nGET\r\n${}\r\n", key.len()).into_bytes();
        command.extend(key);
        command.extend(b"\r\n");
        connection.write_all(&command).await?;
        let mut reply = [0; NIL.len()];
        connection.read_exact(&mut reply).await?;
        ensure!(reply == NIL, "redis says something else than nil");
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        Ok(())
    }
}

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?
        .block_on(listen())
}

async fn listen() -> Result<()> {
    let ports: Vec<u16> = std::env::args()
        .skip(1)
        .map(|word| word.parse().context("a port"))
        .collect::<Result<_>>()?;
    let [port, stock, price, ship, redis] = ports[..] else {
        bail!("usage: live_tokio PORT STOCK PRICE SHIP REDIS")
    };
    let shop = Arc::new(Shop {
        http: Client::builder(TokioExecutor::new()).build_http(),
        idle: Mutex::default(),
        stock,
        price,
        ship,
        redis,
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let shop = Arc::clone(&shop);
        let service = service_fn(move |request| {
            let shop = Arc::clone(&shop);
            async move { shop.serve(request).await }
        });
        tokio::spawn(async move {
            // A client that goes away is no news.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
