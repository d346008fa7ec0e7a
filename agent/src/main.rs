//! `catamaran-agent`: see `--help`.

use std::process::ExitCode;

use catamaran_agent::{run, settings::Settings};
use clap::Parser;

// One thread for all that waits; cgroups are read and written on others.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    settings.log.start(None);
    match run::run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the agent ends");
            ExitCode::FAILURE
        }
    }
}
