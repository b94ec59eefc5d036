//! What `evaluate` prints.

use super::feed::Linked;
use super::recording::Recording;
use super::score::{BINS, Share, candidates, score};
use super::{Answer, Error};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// What is linked.
pub fn head(out: &mut dyn Write, file: &Path, recording: &Recording) -> Result<(), Error> {
    let (mean, p95) = candidates(recording);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let spans = recording.spans.len();
    writeln!(
        out,
        "{name}: {spans} spans, {mean:.2} candidates a call (95 %: {p95})"
    )?;
    Ok(())
}

/// How right the answers are.
pub fn one(
    out: &mut dyn Write,
    recording: &Recording,
    answers: &[Option<Answer>],
    busy: Duration,
) -> Result<(), Error> {
    let score = score(recording, answers);
    let value = |share: Share| share.value();
    writeln!(
        out,
        "  pair by trace {:.4}  by parent {:.4}  request {:.4}  whole trace {:.4}",
        value(score.pair_by_trace),
        value(score.pair_by_parent),
        value(score.request),
        value(score.trace),
    )?;
    writeln!(
        out,
        "  given: precision {:.4} recall {:.4}",
        value(score.precision),
        value(score.recall),
    )?;
    for (index, low) in BINS.iter().enumerate() {
        let (Some(share), Some(sum)) = (score.reliability.get(index), score.confidence.get(index))
        else {
            continue;
        };
        if share.all > 0 {
            let mean = sum / f64::from(u32::try_from(share.all).unwrap_or(u32::MAX));
            writeln!(
                out,
                "    confidence from {low:.2}: {:6} links, mean {mean:.3}, right {:.3}",
                share.all,
                share.value()
            )?;
        }
    }
    let seconds = busy.as_secs_f64().max(1e-9);
    let spans = f64::from(u32::try_from(recording.spans.len()).unwrap_or(u32::MAX));
    writeln!(out, "  {:.0} spans/s", spans / seconds)?;
    Ok(())
}

/// How the parents were found.
pub fn methods(out: &mut dyn Write, recording: &Recording, linked: &Linked) -> Result<(), Error> {
    let mut methods: BTreeMap<&str, Share> = BTreeMap::new();
    for ((span, method), answer) in recording
        .spans
        .iter()
        .zip(&linked.methods)
        .zip(&linked.answers)
    {
        if !span.ingress {
            let share = methods.entry(method).or_default();
            let right = answer.map(|answer| answer.parent) == span.above;
            share.all += 1;
            share.right += usize::from(right);
        }
    }
    for (method, share) in methods {
        writeln!(
            out,
            "    {method}: {} calls, best guess right {:.3}",
            share.all,
            share.value()
        )?;
    }
    Ok(())
}

/// What requests that never were got when timing was tested.
pub fn decoys(out: &mut dyn Write, share: Option<f32>) -> Result<(), Error> {
    if let Some(share) = share {
        writeln!(out, "  decoys got {share:.3} of their share")?;
    }
    Ok(())
}
