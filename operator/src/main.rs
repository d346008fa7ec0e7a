//! `catamaran-operator`: see `--help`.

use std::process::ExitCode;

use catamaran_operator::{run, settings::Settings};
use clap::Parser;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let settings = Settings::parse();
    settings.log.start(None);
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads to run on");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run::run(settings));
    // Nothing is waited for: a task that computes for ever must not hold up the end of a process that lost its lease.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}
