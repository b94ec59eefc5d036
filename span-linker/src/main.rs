//! The binary `deeptrace-span-linker`.

use std::process::ExitCode;

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
