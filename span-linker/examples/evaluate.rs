//! Links recorded spans and says how right that was:
//! `cargo run --release -p span-linker --example evaluate -- FILE…`.

use clap::Parser;
use span_linker::evaluate::{Options, evaluate};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    match evaluate(&cli.options, &mut std::io::stdout().lock()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
