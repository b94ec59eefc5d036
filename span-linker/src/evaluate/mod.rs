//! `evaluate`: links recorded spans whose parents are known, and says how right that was.
//!
//! Drives the processor itself, in the recording's own time; the methods that are compared
//! with it (`baselines`) see the same spans. Nothing here runs in a collector.

mod baselines;
mod feed;
mod recording;
mod report;
mod score;

use crate::clock::worked;
use baselines::Baseline;
use feed::Feed;
use recording::Recording;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What to evaluate.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Recordings to link, one after the other
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Recordings to learn from before; their parents are not told
    #[arg(long, value_name = "FILE")]
    learn: Vec<PathBuf>,
    /// How often to go through what is learned
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Divide the start times of traces by this, and keep durations
    #[arg(long, value_name = "FACTOR", default_value_t = 1)]
    compress: u64,
    /// Lay the minutes of the recording over each other
    #[arg(long)]
    fold: bool,
    /// Link only traces that began in these minutes, counted from 0, and learn from the others
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    minutes: Vec<usize>,
    /// Take ids that applications send on out of headers and payload
    #[arg(long)]
    strip_ids: bool,
    /// Lose this share of spans: 0.01 or 1%
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    lose: f64,
    /// Give away the parents of this share of calls
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    exact: f64,
    /// Link by these methods too
    #[arg(long, value_enum, value_delimiter = ',')]
    baseline: Vec<Baseline>,
    /// Least confidence of a link
    #[arg(long, default_value_t = 0.8)]
    floor: f64,
    /// How long a span waits for its decision, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    wait: u64,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A recording cannot be used.
    #[error("cannot read the recording {}: {reason}", path.display())]
    Recording {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Write(#[from] std::io::Error),
}

/// A parent that was found.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Index of the request.
    pub parent: u32,
    /// 0 to 1.
    pub confidence: f64,
    /// It is above the floor.
    pub given: bool,
}

/// Links the recordings and writes a report on each.
pub fn evaluate(options: &Options, out: &mut dyn Write) -> Result<(), Error> {
    let learned: Result<Vec<_>, _> = options
        .learn
        .iter()
        .map(|file| Recording::read(file))
        .collect();
    let mut learned = learned?;
    for file in &options.files {
        let whole = Recording::read(file)?;
        let mut recording = whole.clone();
        if !options.minutes.is_empty() {
            recording = whole.minutes(&options.minutes);
            let others: Vec<usize> = (0..60).filter(|m| !options.minutes.contains(m)).collect();
            learned.push(whole.minutes(&others));
        }
        if options.fold {
            recording.fold();
        }
        recording.compress(options.compress);
        recording.lose(options.lose);
        if options.strip_ids {
            recording.strip_ids();
        }
        let wait = Duration::from_millis(options.wait);
        let mut feed = Feed::new(options.floor, wait);
        for _ in 0..options.rounds {
            for recording in &learned {
                feed.link(recording, 0.0);
            }
        }
        (feed.busy, feed.spans) = (Duration::ZERO, 0);
        let linked = feed.link(&recording, options.exact);
        report::head(out, file, &recording)?;
        report::one(out, &recording, &linked.answers, feed.busy)?;
        report::methods(out, &recording, &linked)?;
        report::decoys(out, feed.decoys())?;
        for baseline in &options.baseline {
            let began = worked();
            let answers = baselines::link(*baseline, &recording);
            writeln!(out, "  beside it: {baseline:?}")?;
            report::one(out, &recording, &answers, worked().saturating_sub(began))?;
        }
    }
    Ok(())
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a share is 0.01 or 1%".to_owned())?;
    let share = number / scale;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("a share is between 0 and 1".to_owned())
    }
}
