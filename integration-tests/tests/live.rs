//! Linking on live traffic: what the collector finds today is not to get worse.
//!
//! `cargo xtask bench live` measures more and longer; `docs/linking-live.md` says why a runtime is
//! where it is.

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::live::{Level, Score, Shop, measure};
use integration_tests::{collector, programs};

const LEVELS: [Level; 2] = [
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
];

/// Least precision of a runtime, and least recall at each level. How much a busy pool hands back where
/// somebody waits for it differs with the load on the processors.
const VIRTUAL_THREADS: &str = "java virtual threads";

const FLOORS: [(&str, f64, [f64; LEVELS.len()]); 8] = [
    ("gunicorn gthread", 0.99, [0.97, 0.97]),
    ("aiohttp", 0.99, [0.9, 0.8]),
    ("node", 0.99, [0.97, 0.97]),
    ("nginx", 0.99, [0.0, 0.0]),
    ("go", 0.97, [0.9, 0.8]),
    ("tokio", 0.97, [0.9, 0.5]),
    ("java pool", 0.99, [0.85, 0.73]),
    ("java virtual threads", 0.97, [0.0, 0.0]),
];

/// A wrong parent is a fault in every run.
fn check_precision(score: &Score, lost: &[String]) -> Result<()> {
    let (precision, _) = floors(score)?;
    ensure!(
        score.precision() >= precision && score.false_parents == 0,
        "{}: precision is below {precision}; {} requests were given a parent; lost: {lost:?}\n{score}",
        score.runtime,
        score.false_parents
    );
    Ok(())
}

fn check_recall(score: &Score, lost: &[String]) -> Result<()> {
    let (_, recall) = floors(score)?;
    ensure!(
        score.recall() >= recall,
        "{}: recall is below {recall}; lost: {lost:?}\n{score}",
        score.runtime
    );
    Ok(())
}

fn floors(score: &Score) -> Result<(f64, f64)> {
    let runtime = score.runtime;
    let Some((_, precision, recalls)) = FLOORS.iter().find(|(name, ..)| *name == runtime) else {
        bail!("{runtime} has no floor");
    };
    let mut levels = LEVELS.iter().zip(recalls);
    let Some((_, recall)) = levels.find(|(level, _)| level.in_flight == score.level.in_flight)
    else {
        bail!("{runtime} has no floor at {}", score.level.in_flight);
    };
    Ok((*precision, *recall))
}

#[test]
fn calls_are_linked_to_the_requests_that_made_them_and_to_no_other() -> Result<()> {
    if let Some(why) = programs::why_not(&["cc", "redis-server"]).or_else(collector::why_not) {
        println!("skipped: linking on live traffic: {why}");
        return Ok(());
    }
    let mut shop = Shop::start()?;
    for why in &shop.missing {
        println!("skipped: linking on live traffic: {why}");
    }
    let mut wrong = Vec::new();
    for level in LEVELS {
        let runtimes = shop.runtimes();
        let measured = measure(&mut shop, &runtimes, level)?;
        for score in &measured.scores {
            println!("{score}");
            wrong.extend(check_precision(score, &measured.lost).err());
            // Where other programs disturb the order of a process, less is given: it is to be so twice.
            if let Err(error) = check_recall(score, &measured.lost) {
                println!("once more: {error:#}");
                let again = measure(&mut shop, &[score.runtime], level)?;
                for score in &again.scores {
                    wrong.extend(check_precision(score, &again.lost).err());
                    wrong.extend(check_recall(score, &again.lost).err());
                }
            }
        }
    }
    let wrong: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn an_id_that_calls_carry_on_links_them_where_threads_tell_nothing() -> Result<()> {
    if let Some(why) = programs::why_not(&["cc", "redis-server"]).or_else(collector::why_not) {
        println!("skipped: linking by ids: {why}");
        return Ok(());
    }
    let mut shop = Shop::start()?;
    if !shop.runtimes().contains(&VIRTUAL_THREADS) {
        println!("skipped: linking by ids: no Java with virtual threads");
        return Ok(());
    }
    let level = Level {
        in_flight: 64,
        requests: 1600,
        id_in_target: true,
    };
    let measured = measure(&mut shop, &[VIRTUAL_THREADS], level)?;
    let score = measured.scores.first().context("no score")?;
    println!("{score}");
    check_precision(score, &measured.lost)?;
    let by_payload = score.by_method.get("payload").copied().unwrap_or_default();
    // The 601 numbers of four digits are ids, and the first 20 calls prove that they are carried on.
    ensure!(
        by_payload.right == by_payload.linked && by_payload.right >= 550,
        "{by_payload:?}\n{score}"
    );
    Ok(())
}
