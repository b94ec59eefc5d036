//! The binary `deeptrace-collector`.

use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Spans are made on one thread and freed on another, seconds later and by the million:
/// docs/linking.md has what that costs with this allocator and with the system's.
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
