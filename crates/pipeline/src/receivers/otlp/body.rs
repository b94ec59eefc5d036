//! Request bodies: read and decompressed within limits of size, memory and time.

use super::rejection::{Reason, Rejection};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that the requests under way in one receiver may have together.
const MAX_BYTES_UNDER_WAY: usize = 256 << 20;
/// What is decompressed at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Compressed bodies from this size on are no work for a thread that serves connections.
const LARGE_COMPRESSED_BYTES: usize = 64 << 10;
/// Window of zstd, as RFC 8878 asks decoders to support: more would be memory for the asking.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// As headers name them.
    pub const ACCEPTED: &str = "gzip, zstd, identity";

    /// Of a header's value; none and an empty one mean that nothing is compressed.
    pub fn parse(value: &[u8]) -> Result<Self, Rejection> {
        match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"zstd" => Ok(Self::Zstd),
            other => {
                let name = String::from_utf8_lossy(other);
                let accepted = Self::ACCEPTED;
                let message = format!("cannot decompress {name:?}, only {accepted}");
                Err(Rejection::new(Reason::Encoding, message))
            }
        }
    }
}

/// Memory of the requests under way; shared by the transports of a receiver.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

/// A request's part of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A share with nothing in it.
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Share {
    fn take(&mut self, bytes: usize) -> Result<(), Rejection> {
        self.bytes += bytes;
        let before = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_BYTES_UNDER_WAY {
            let message = "too many bytes of requests are under way";
            return Err(Rejection::new(Reason::Busy, message));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a request may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Before and after decompression.
    pub bytes: usize,
    /// Until all of it has come.
    pub time: Duration,
}

/// The whole body as it comes.
pub async fn read(body: Incoming, limits: Limits, share: &mut Share) -> Result<Bytes, Rejection> {
    let promised = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if promised > limits.bytes {
        return Err(Rejection::too_large(limits.bytes));
    }
    let all = collect(body, limits.bytes, share);
    let late = |_| {
        let message = format!("has not arrived within {:?}", limits.time);
        Rejection::new(Reason::Timeout, message)
    };
    tokio::time::timeout(limits.time, all).await.map_err(late)?
}

async fn collect(mut body: Incoming, limit: usize, share: &mut Share) -> Result<Bytes, Rejection> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Rejection::new(Reason::BrokenOff, format!("broke off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue; // Trailers, which OTLP gives no meaning.
        };
        let so_far = first.len() + joined.len();
        if so_far + data.len() > limit {
            return Err(Rejection::too_large(limit));
        }
        share.take(data.len())?;
        if so_far == 0 {
            first = data; // Often all there is, and then without a copy.
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&std::mem::take(&mut first));
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() {
        first
    } else {
        joined.freeze()
    })
}

/// The body as it was before it was compressed, up to the limit.
pub async fn decompress(
    body: Bytes,
    encoding: Encoding,
    limit: usize,
    mut share: Share,
) -> Result<(Bytes, Share), Rejection> {
    if encoding == Encoding::Identity {
        return Ok((body, share));
    }
    if body.len() < LARGE_COMPRESSED_BYTES {
        let body = inflate(&body, encoding, limit, &mut share)?;
        return Ok((body, share));
    }
    let work = tokio::task::spawn_blocking(move || {
        let body = inflate(&body, encoding, limit, &mut share)?;
        Ok((body, share))
    });
    // Ends early only when the runtime does.
    work.await
        .unwrap_or_else(|_| Err(Rejection::new(Reason::Pipelines, "stopping")))
}

fn inflate(
    body: &[u8],
    encoding: Encoding,
    limit: usize,
    share: &mut Share,
) -> Result<Bytes, Rejection> {
    let broken = |error: io::Error| {
        let message = format!("cannot be decompressed: {error}");
        Rejection::new(Reason::Malformed, message)
    };
    let mut reader: Box<dyn Read + '_> = match encoding {
        Encoding::Identity => Box::new(body),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(body)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?;
            decoder
                .window_log_max(MAX_ZSTD_WINDOW_LOG)
                .map_err(broken)?;
            Box::new(decoder)
        }
    };
    let mut out = Vec::with_capacity(body.len().saturating_mul(2).min(limit));
    loop {
        let before = out.len();
        // One byte more than the limit tells that it is passed.
        let room = (limit - before + 1).min(CHUNK_BYTES);
        let mut chunk = reader.by_ref().take(room as u64);
        chunk.read_to_end(&mut out).map_err(broken)?;
        if out.len() > limit {
            return Err(Rejection::too_large(limit));
        }
        if out.len() == before {
            return Ok(Bytes::from(out));
        }
        share.take(out.len() - before)?;
    }
}
