//! Linking on live traffic: real servers that forward no header, the truth of which request each
//! of their calls belongs to, and how much of it the collector finds.
//!
//! ```text
//! load --> server under test --> leaf (stock, price, ship)
//!   |                       \--> Redis
//!   \---- truth <--- who came on which connection in which order ---/
//! ```
//! The servers, and what they call for a request, are in `live/`.

mod load;
mod record;
mod score;
mod servers;
mod truth;

pub use load::Level;
pub use score::{Counted, Score};
pub use servers::{RUNTIMES, Runtime, Shop};

use std::ops::Range;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::collector::{Collector, Options};
use crate::exported::read_file;
use crate::sandbox::Sandbox;
use truth::Truth;

/// What one run of the collector saw.
#[derive(Debug)]
pub struct Measured {
    /// One a runtime.
    pub scores: Vec<Score>,
    /// What the summary says of events that the kernel side lost, and of requests and responses
    /// that found no partner.
    pub lost: Vec<String>,
}

/// One runtime's part of a run.
#[derive(Debug)]
struct Round {
    server: servers::Server,
    numbers: Range<u64>,
    level: Level,
    seconds: f64,
}

/// Runs a fresh collector while each of these runtimes serves the load, one after the other.
pub fn measure(shop: &mut Shop, runtimes: &[&str], level: Level) -> Result<Measured> {
    let sandbox = Sandbox::new()?;
    let raw = record::folder().map(|_| sandbox.dir().join("raw.jsonl"));
    let options = Options {
        ports: shop.ports(),
        raw: raw.clone(),
        ..Options::default()
    };
    let collector = Collector::start(&sandbox, &options)?;
    let mut truth = Truth::default();
    let mut rounds = Vec::new();
    for runtime in runtimes {
        let server = shop.server(runtime)?;
        let numbers = shop.take_numbers(level.requests);
        let begun = Instant::now();
        load::serve(server.port, numbers.start, level, &mut truth)
            .with_context(|| format!("{runtime}, {} in flight", level.in_flight))?;
        rounds.push(Round {
            server,
            numbers,
            level,
            seconds: begun.elapsed().as_secs_f64(),
        });
    }
    shop.tell(&rounds, &mut truth)?;
    let finished = collector.stop()?;
    ensure!(finished.status.success(), "the collector failed");
    if let Some(raw) = raw {
        record::record(&read_file(&raw)?, &finished.spans, &truth, &rounds)?;
    }
    let lost = |line: &&String| {
        ["deeptrace_kernel_lost", "deeptrace_unpaired"]
            .iter()
            .any(|name| line.contains(name))
    };
    Ok(Measured {
        scores: score::score(&finished.spans, &truth, &rounds),
        lost: finished.said.iter().filter(lost).cloned().collect(),
    })
}
