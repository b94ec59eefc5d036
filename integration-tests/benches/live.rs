//! Linking on live traffic, every runtime at every level: the table of `docs/linking-live.md`.
//!
//! Arguments that are no option choose runtimes whose names contain them; `--times=N` makes N times as
//! many requests, which tells what the beginning costs, before anything is learned.

use anyhow::{Context as _, Result};
use integration_tests::live::{Level, Shop, measure};
use integration_tests::{collector, programs};

const LEVELS: [Level; 4] = [
    Level {
        in_flight: 1,
        requests: 300,
        id_in_target: false,
    },
    Level {
        in_flight: 8,
        requests: 800,
        id_in_target: false,
    },
    Level {
        in_flight: 64,
        requests: 1600,
        id_in_target: false,
    },
    Level {
        in_flight: 256,
        requests: 2400,
        id_in_target: false,
    },
];

fn main() -> Result<()> {
    if let Some(why) = programs::why_not(&["cc", "redis-server"]).or_else(collector::why_not) {
        println!("skipped: linking on live traffic: {why}");
        return Ok(());
    }
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let times = std::env::args().find_map(|word| word.strip_prefix("--times=").map(str::parse));
    let times: u64 = times.transpose().context("--times=N")?.unwrap_or(1);
    let mut shop = Shop::start()?;
    for why in &shop.missing {
        println!("skipped: {why}");
    }
    println!(
        "| runtime | in flight | candidates | calls | precision | recall | recall by callee | right/linked by method, not linked by reason | not seen |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut lost = Vec::new();
    for runtime in shop.runtimes() {
        let is_wanted = wanted.iter().any(|word| runtime.contains(&**word));
        if !wanted.is_empty() && !is_wanted {
            continue;
        }
        for level in LEVELS {
            let level = Level {
                requests: level.requests * times,
                id_in_target: false,
                ..level
            };
            let measured = measure(&mut shop, &[runtime], level)?;
            for score in &measured.scores {
                println!("{score}");
            }
            for line in measured.lost {
                lost.push(format!("{runtime} at {}: {}", level.in_flight, line.trim()));
            }
        }
    }
    println!("lost in the kernel, unpaired: {lost:?}");
    Ok(())
}
