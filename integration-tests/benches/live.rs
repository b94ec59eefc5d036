//! Linking on live traffic, every runtime at every level: the table of `docs/linking-live.md`.
//!
//! Arguments that are no option choose runtimes whose names contain them.

use anyhow::Result;
use integration_tests::live::{Level, Shop, measure};
use integration_tests::{collector, programs};

const LEVELS: [Level; 4] = [
    Level {
        in_flight: 1,
        requests: 300,
    },
    Level {
        in_flight: 8,
        requests: 800,
    },
    Level {
        in_flight: 64,
        requests: 1600,
    },
    Level {
        in_flight: 256,
        requests: 2400,
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
