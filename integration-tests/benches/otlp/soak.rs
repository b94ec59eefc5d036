//! Half of the top rate for long: memory must not grow, and nothing may be lost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::sandbox::Sandbox;

use crate::backend::Backend;
use crate::load::{Load, Requests};
use crate::subject::{Product, Subject, Target};
use crate::{SIZES, measure};

/// Lines of the table.
const LOOKS: u32 = 20;

/// Runs it for so long, after the top rate has been measured.
pub async fn run(core: usize, length: Duration) -> Result<()> {
    let [size, _] = SIZES;
    let requests = Requests::of(size);
    let top = measure(core, Product::Deeptrace, Target::Otlp, &requests).await?;
    let rate = top.rate / 2.0;
    println!(
        "top rate {:.0} spans/s; {rate:.0} spans/s for {length:?}",
        top.rate
    );
    let sandbox = Sandbox::new()?;
    let backend = Backend::start().await?;
    let subject = Subject::start(
        &sandbox,
        core,
        Product::Deeptrace,
        Target::Otlp,
        backend.port,
    )?;
    let load = Load::start(subject.port, &requests, Some(rate)).await?;
    println!("| s | spans taken | refused | resident memory, MiB |");
    println!("|---|---|---|---|");
    let begun = Instant::now();
    for look in 1..=LOOKS {
        let at = begun + length * look / LOOKS;
        tokio::time::sleep_until(at.into()).await;
        println!(
            "| {:.0} | {} | {} | {:.1} |",
            begun.elapsed().as_secs_f64(),
            load.acked(),
            load.refused(),
            subject.memory("VmRSS")?
        );
    }
    let refused = load.refused();
    let acked = load.stop().await?;
    backend.wait_for(acked).await?;
    ensure!(refused == 0, "{refused} spans were refused");
    println!("{acked} spans taken, all of them arrived, none was refused");
    println!("highest {:.1} MiB", subject.memory("VmHWM")?);
    subject.stop()
}
