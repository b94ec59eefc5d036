//! What a collector costs that passes spans on: ours and rotel, each alone on one core, with the
//! same requests from the other core.
//!
//! `cargo xtask bench otlp` prints spans a second, and memory at its highest.
//! `cargo xtask bench otlp --soak 600` sends half of our top rate for so many seconds instead, and
//! prints memory over that time.

#![expect(
    clippy::cast_precision_loss,
    reason = "counts of some minutes are far below 2^53"
)]

mod backend;
mod load;
mod soak;
mod subject;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use backend::Backend;
use integration_tests::sandbox::Sandbox;
use load::{Load, Requests};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use subject::{Product, Subject, Target};

const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);
/// Spans of a request: as SDKs send them under load (the default of `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`),
/// and as they do with little to send.
const SIZES: [usize; 2] = [512, 32];

/// One round.
struct Measured {
    /// Spans a second that were taken.
    rate: f64,
    /// Spans for each second of processor time that it used.
    by_processor: f64,
    /// Resident memory at its highest, MiB.
    peak_mib: f64,
}

fn main() -> Result<()> {
    let core = leave_a_core()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let arguments = std::env::args().skip(1).filter(|one| one != "--bench");
    let arguments: Vec<_> = arguments.collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match words[..] {
            [] => compare(core).await,
            ["--soak", seconds] => soak::run(core, Duration::from_secs(seconds.parse()?)).await,
            _ => bail!("it takes nothing, or --soak SECONDS"),
        }
    })
}

/// Keeps this process off a core, and says which: what is measured runs there.
fn leave_a_core() -> Result<usize> {
    let mut cores = sched_getaffinity(None)?;
    let all = (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core));
    let core = all.max().context("no core")?;
    cores.unset(core);
    ensure!(
        cores.count() > 0,
        "it takes two cores: one for what is measured, one for the load"
    );
    sched_setaffinity(None, &cores)?;
    Ok(core)
}

async fn compare(core: usize) -> Result<()> {
    println!("| spans a request, to | | spans/s | spans/s of processor time | peak memory, MiB |");
    println!("|---|---|---|---|---|");
    for size in SIZES {
        let requests = Requests::of(size);
        for (target, to) in [(Target::Nothing, "nothing"), (Target::Otlp, "OTLP")] {
            let mut rounds = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                for (product, rounds) in [Product::Deeptrace, Product::Rotel]
                    .into_iter()
                    .zip(&mut rounds)
                {
                    rounds.push(measure(core, product, target, &requests).await?);
                }
            }
            let [ours, theirs] = rounds.map(|rounds| median(&rounds));
            row(&format!("{size}, {to}"), "deeptrace", &ours);
            row("", "rotel", &theirs);
            println!(
                "| | ratio | {:.2} | {:.2} | {:.2} |",
                ours.rate / theirs.rate,
                ours.by_processor / theirs.by_processor,
                ours.peak_mib / theirs.peak_mib
            );
        }
    }
    Ok(())
}

fn row(what: &str, name: &str, measured: &Measured) {
    println!(
        "| {what} | {name} | {:.0} | {:.0} | {:.0} |",
        measured.rate, measured.by_processor, measured.peak_mib
    );
}

/// A fresh process under as much load as it takes.
async fn measure(
    core: usize,
    product: Product,
    target: Target,
    requests: &Requests,
) -> Result<Measured> {
    let sandbox = Sandbox::new()?;
    let backend = Backend::start().await?;
    let subject = Subject::start(&sandbox, core, product, target, backend.port)?;
    let load = Load::start(subject.port, requests, None).await?;
    tokio::time::sleep(WARM_UP).await;
    // What counts is what has left, and for what goes nowhere what was taken.
    let done = || match target {
        Target::Nothing => load.acked(),
        Target::Otlp => backend.spans(),
    };
    let (spans, used, begun) = (done(), subject.processor_time()?, std::time::Instant::now());
    tokio::time::sleep(MEASURED).await;
    let spans = (done() - spans) as f64;
    let used = subject.processor_time()? - used;
    let rate = spans / begun.elapsed().as_secs_f64();
    let acked = load.stop().await?;
    if target == Target::Otlp {
        let arrived = backend.wait_for(acked).await;
        arrived.with_context(|| format!("{product:?}: {}", subject.logged()))?;
    }
    let peak_mib = subject.memory("VmHWM")?;
    subject.stop()?;
    Ok(Measured {
        rate,
        by_processor: spans / used,
        peak_mib,
    })
}

/// Of each figure by itself.
fn median(rounds: &[Measured]) -> Measured {
    let middle = |figure: fn(&Measured) -> f64| {
        let mut figures: Vec<_> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Measured {
        rate: middle(|one| one.rate),
        by_processor: middle(|one| one.by_processor),
        peak_mib: middle(|one| one.peak_mib),
    }
}
