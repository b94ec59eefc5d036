//! The binary `deeptrace-collector`.

use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Spans are made on one thread and freed on another, seconds later and by the million, which this
/// one is quicker at than the system's (`--example speed` of span-linker shows it).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match collector::app::run() {
        Ok(code) => code,
        Err(error) => {
            pipeline::cli::complain(format_args!("deeptrace-collector: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
