//! The binary `deeptrace-collector`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match collector::app::run() {
        Ok(code) => code,
        Err(error) => {
            pipeline::cli::complain(format_args!("deeptrace-collector: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
