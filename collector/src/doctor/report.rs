//! What doctor prints: the checks, and the processes that would be traced.

use super::{Check, Facts, Verdict, diagnose};
use crate::discovery::{NameSource, Table, Traced};
use std::fmt;

/// A process that would be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub(super) cells: [String; 6],
}

/// All that doctor has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order of [`diagnose`].
    pub checks: Vec<Check>,
    /// By pid.
    pub processes: Vec<Row>,
}

impl Report {
    /// Judges the host and lists what a scanned table traces.
    pub fn new(facts: &Facts, table: &Table) -> Self {
        let mut traced: Vec<&Traced> = table.traced().map(AsRef::as_ref).collect();
        traced.sort_by_key(|traced| traced.pid);
        let mut checks = diagnose(facts);
        checks.push(processes(traced.len(), table));
        Self {
            checks,
            processes: traced.into_iter().map(Row::new).collect(),
        }
    }

    /// Whether tracing can work.
    pub fn can_trace(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.verdict < Verdict::Fail)
    }

    /// 0 if tracing can work, 1 if not.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.can_trace())
    }
}

fn processes(traced: usize, table: &Table) -> Check {
    const NAME: &str = "processes";
    let counts = table.counts();
    let known = table.known();
    if counts.refused_traced + counts.refused_known > 0 {
        let found = format!(
            "{traced} of {known} selected, {} refused",
            counts.refused_traced
        );
        return Check::warn(NAME, found, "select fewer processes, or raise the limit");
    }
    if traced == 0 {
        let remedy = "see receivers.ebpf.select: processes that start later may match";
        return Check::warn(NAME, format!("none of {known} is selected"), remedy);
    }
    Check::pass(NAME, format!("{traced} of {known} selected"))
}

const HEADINGS: [&str; 6] = [
    "PID",
    "SERVICE",
    "NAMED BY",
    "RUNTIME",
    "EXECUTABLE",
    "SELECTED BY",
];

impl Row {
    fn new(traced: &Traced) -> Self {
        let named_by = match traced.service.source {
            NameSource::ServiceNameVariable => "OTEL_SERVICE_NAME",
            NameSource::ResourceAttributes => "OTEL_RESOURCE_ATTRIBUTES",
            NameSource::Script => "script",
            NameSource::Executable => "executable",
        };
        let executable = traced
            .executable
            .as_deref()
            .map_or("?".into(), |path| path.to_string_lossy());
        let cells = [
            traced.pid.to_string(),
            traced.service.name.clone(),
            named_by.to_owned(),
            format!("{:?}", traced.runtime).to_lowercase(),
            executable.into_owned(),
            traced.decision.why.clone(),
        ];
        Self {
            cells: cells.map(|cell| printable(&cell)),
        }
    }
}

/// Paths are bytes that others choose: none of them may command the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .checks
            .iter()
            .map(|check| check.name.len())
            .max()
            .unwrap_or(0);
        for check in &self.checks {
            let verdict = match check.verdict {
                Verdict::Pass => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            writeln!(
                f,
                "{:width$}  {verdict:4}  {}",
                check.name,
                printable(&check.found)
            )?;
            if !check.remedy.is_empty() {
                writeln!(f, "{:width$}        -> {}", "", check.remedy)?;
            }
        }
        if !self.processes.is_empty() {
            writeln!(f)?;
            write_table(f, &self.processes)?;
        }
        let failed = self
            .checks
            .iter()
            .filter(|check| check.verdict == Verdict::Fail)
            .count();
        let warned = self
            .checks
            .iter()
            .filter(|check| check.verdict == Verdict::Warn)
            .count();
        match failed {
            0 => writeln!(
                f,
                "\ntracing can work, {warned} warnings, {} processes",
                self.processes.len()
            ),
            _ => writeln!(
                f,
                "\ntracing cannot work: {failed} checks failed, {warned} warnings"
            ),
        }
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let headings = HEADINGS.map(str::to_owned);
    let lines: Vec<&[String; 6]> = std::iter::once(&headings)
        .chain(rows.iter().map(|row| &row.cells))
        .collect();
    let mut widths = [0; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line.iter()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in lines {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
