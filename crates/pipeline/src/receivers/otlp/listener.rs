//! Sockets that listen, and the tasks of their connections.

use super::connection::Server;
use crate::serve::{addresses, host_and_port};
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two attempts when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on every address that the host of an endpoint has (`localhost` often has two).
pub fn bind(endpoint: &str) -> io::Result<Vec<TcpListener>> {
    let (host, port) = host_and_port(endpoint).map_err(io::Error::other)?;
    let mut sockets = Vec::new();
    let mut failure = None;
    for address in addresses(host, port)? {
        match StdListener::bind(address) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                sockets.push(TcpListener::from_std(socket)?);
            }
            // IPv6 may be switched off.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                failure = Some(error);
            }
            Err(error) => return Err(error),
        }
        if port == 0 {
            break; // Another address would get another port.
        }
    }
    match failure {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

/// Takes connections until it is told to stop, then lets those there are end.
pub struct Listener {
    pub sockets: Vec<TcpListener>,
    pub max_connections: usize,
    pub server: Arc<Server>,
}

impl Listener {
    /// Back when the last connection has ended.
    pub async fn run(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.max_connections));
        let mut tasks = JoinSet::new();
        for socket in self.sockets {
            let (server, slots, stop) =
                (Arc::clone(&self.server), Arc::clone(&slots), stop.clone());
            tasks.spawn(accept(socket, server, slots, stop));
        }
        while tasks.join_next().await.is_some() {}
    }
}

async fn accept(
    socket: TcpListener,
    server: Arc<Server>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => take(stream, &server, &slots, &stop, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections just now");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

fn take(
    stream: TcpStream,
    server: &Arc<Server>,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    let counts = &server.intake.counts;
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        counts.over_limit.inc();
        return; // Hangs up.
    };
    let (server, stop) = (Arc::clone(server), stop.clone());
    connections.spawn(async move {
        server.intake.counts.connections.add(1);
        server.converse(stream, &stop).await;
        server.intake.counts.connections.add(-1);
        drop(slot);
    });
}
