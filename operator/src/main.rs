//! `catamaran-operator`: see `--help`.

use std::process::ExitCode;

use catamaran_operator::{run, settings::Settings};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    // kube-runtime opens a span of its own around each reconcile; ours says the same.
    settings.log.start(Some("kube_runtime=warn"));
    match run::run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}
