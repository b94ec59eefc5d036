//! Clients that ask without a pause, each on a connection of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::truth::{Came, Truth};

const REPLY_LIMIT: Duration = Duration::from_secs(30);

/// How much is asked of one server.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// Requests in flight at any time.
    pub in_flight: usize,
    /// Requests in all.
    pub requests: u64,
    /// The request's number stands in its target, too: an id that the call of Redis carries on.
    pub id_in_target: bool,
}

/// Asks for the numbers from `first` on, and notes which went over which connection.
pub(super) fn serve(port: u16, first: u64, level: Level, truth: &mut Truth) -> Result<()> {
    let asked = AtomicU64::new(0);
    let client = || -> Result<Vec<Came>> {
        let mut connection = Connection::open(port)?;
        let mut came = Vec::new();
        loop {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            if number >= level.requests {
                return Ok(came);
            }
            let number = first + number;
            let context = || format!("request {number} to port {port}");
            connection
                .ask(number, level.id_in_target)
                .with_context(context)?;
            came.push(Came {
                port,
                peer_port: connection.local_port,
                number,
            });
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..level.in_flight).map(|_| scope.spawn(client)).collect();
        for client in clients {
            match client.join() {
                Ok(came) => came?.into_iter().for_each(|came| truth.add(came)),
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    })
}

struct Connection {
    stream: BufReader<TcpStream>,
    local_port: u16,
}

impl Connection {
    fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        let local_port = stream.local_addr()?.port();
        Ok(Self {
            stream: BufReader::new(stream),
            local_port,
        })
    }

    /// One request and its whole reply, which must be `ok`.
    fn ask(&mut self, number: u64, id_in_target: bool) -> Result<()> {
        let body = number.to_string();
        let id = if id_in_target { &*body } else { "" };
        let request = format!(
            "POST /{id} HTTP/1.1\r\nHost: live\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut length = None;
        let mut line = String::new();
        let mut head = String::new();
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "no reply");
            if line == "\r\n" {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length.with_context(|| format!("no length in {head:?}"))?];
        self.stream.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body);
        ensure!(body == "ok\n", "{head}{body}");
        Ok(())
    }
}
