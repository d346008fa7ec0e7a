//! The KubeVirt stand-in as a program: for a control plane to play in. It uses KUBECONFIG and runs until it is ended.

use std::time::Duration;

use anyhow::Result;
use catamaran_e2e::kubevirt::{Knobs, StandIn, own_definitions};
use clap::Parser;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    /// From Scheduled to Running, in milliseconds
    #[arg(long, default_value_t = 1000)]
    boot_delay: u64,
    /// How late the caches of virt-controller are, in milliseconds
    #[arg(long, default_value_t = 0)]
    cache_lag: u64,
    /// Install KubeVirt's own CustomResourceDefinitions, where they are at hand
    #[arg(long)]
    own_definitions: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let knobs = Knobs {
        boot_delay: Duration::from_millis(cli.boot_delay),
        cache_lag: Duration::from_millis(cli.cache_lag),
        definitions: cli.own_definitions.then(own_definitions).flatten(),
        ..Knobs::default()
    };
    let _stand_in = StandIn::start(kube::Client::try_default().await?, knobs).await?;
    eprintln!("the KubeVirt stand-in runs; end it with Ctrl-C");
    Ok(tokio::signal::ctrl_c().await?)
}
