//! The binary `deeptrace-span-linker`.

use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Spans are made on one thread and freed on another, seconds later and by the million, which this
/// one is quicker at than the system's (`--example speed` of span-linker shows it).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match span_linker::app::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = anyhow::Error::from(error);
            pipeline::cli::complain(format_args!("deeptrace-span-linker: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
