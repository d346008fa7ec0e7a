//! Tests on a real node. They share one guest, so this is its own test runner: the guest boots before the first test
//! that needs it and ends with the last.
//!
//! A host that cannot run a guest fails them.

mod agent;
mod bill;
mod chart;
mod enforced;
mod frozen;
mod ground;
mod hello;
mod in_place;
mod network;
mod node;
mod quota;
mod restarts;
mod security;
mod virtual_machines;

use std::{env, process::ExitCode, sync::Arc, thread::available_parallelism};

use anyhow::{Result, anyhow};
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{
    runtime::Runtime,
    sync::{OnceCell, RwLock},
};

use ground::Ground;

/// A test on the shared ground.
#[derive(Clone, Copy)]
enum Test {
    /// Runs beside others.
    Shared(Run),
    /// Disturbs others, so it runs when none of them does.
    Alone(Run),
    /// Has a cluster of its own, and runs when no other does: two guests at once would slow each other.
    Apart(fn() -> BoxFuture<'static, Result<()>>),
}

type Run = for<'a> fn(&'a Ground) -> BoxFuture<'a, Result<()>>;

/// Every test with its name.
macro_rules! tests {
    ($($kind:ident($module:ident :: $name:ident)),* $(,)?) => {
        [$((
            concat!(stringify!($module), "::", stringify!($name)),
            Test::$kind(|ground| Box::pin($module::$name(ground))),
        )),*]
    };
}

fn main() -> Result<ExitCode> {
    let tests = tests![
        Shared(node::is_ready_and_set_up),
        Shared(node::the_shell_keeps_commands_apart),
        Alone(node::a_second_guest_joins),
        Shared(node::takes_images_without_a_registry),
        Shared(hello::a_pod_runs_hello_world),
        Shared(hello::a_workload_runs_hello_world),
        Shared(agent::knobs_are_held_and_go_with_the_quota),
        Shared(agent::forks_are_refused),
        Shared(agent::writes_are_slowed_to_the_limit),
        Alone(agent::weights_order_the_cpu),
        Shared(frozen::containers_use_nothing_and_go_on),
        Alone(agent::an_agent_that_another_one_follows_keeps_what_it_held),
        Alone(bill::known_seconds_are_billed_over_restarts_and_a_failover),
        Shared(network::pods_reach_services),
        Shared(quota::limits_are_in_the_cgroup),
        Shared(quota::a_resize_changes_the_cgroup_in_place),
        Shared(quota::the_limit_is_what_a_container_has_in_each_period),
        Shared(quota::containers_are_isolated),
        Alone(quota::a_neighbour_at_its_limit_keeps_nobody_from_its_own),
        Shared(in_place::edits_under_load_restart_nothing),
        Shared(in_place::what_no_node_has_rolls_and_the_plan_says_so),
        Shared(enforced::a_workload_says_whether_its_node_holds_the_quota),
        Shared(enforced::a_kill_for_want_of_memory_is_told_with_a_size),
        Shared(virtual_machines::knobs_are_held_at_the_launcher_and_guests_are_paused),
        Shared(security::the_agents_token_reads_pods_and_does_nothing_else),
        Shared(security::usage_of_another_node_is_refused),
        Alone(security::hostile_annotations_are_refused_and_told),
        Alone(restarts::pods_stay_and_their_knobs_are_held),
    ];
    let runtime = Arc::new(Runtime::new()?);
    // An error is kept as well: the next test would meet it again after minutes.
    let ground: Arc<OnceCell<Result<Ground, String>>> = Arc::default();
    let order = Arc::new(RwLock::new(()));
    let apart = [("chart::runs_the_product", Test::Apart(|| Box::pin(chart::runs_the_product())))];
    let trials = apart.into_iter().chain(tests).map(|(name, test)| {
        let (runtime, ground, order) = (runtime.clone(), ground.clone(), order.clone());
        Trial::test(name, move || {
            let outcome = runtime.block_on(async {
                let shared = async {
                    let ground = ground
                        .get_or_init(|| async { Ground::start().await.map_err(|error| format!("{error:#}")) })
                        .await;
                    ground.as_ref().map_err(|error| anyhow!("the ground did not start: {error}"))
                };
                match test {
                    Test::Shared(run) => {
                        let _others = order.read().await;
                        run(shared.await?).await
                    }
                    Test::Alone(run) => {
                        let _alone = order.write().await;
                        run(shared.await?).await
                    }
                    Test::Apart(run) => {
                        let _alone = order.write().await;
                        run().await
                    }
                }
            });
            outcome.map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    let mut arguments = Arguments::from_args();
    // As cargo's own runner does; but not more than there are cores, since a guest may want them all.
    let threads = env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    let cores = available_parallelism()?.get();
    arguments.test_threads = arguments.test_threads.or(Some(threads.unwrap_or(cores).min(cores)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Before this process ends, and within its runtime: QEMU and the control plane.
    let _inside = runtime.enter();
    drop(ground);
    Ok(conclusion.exit_code())
}
