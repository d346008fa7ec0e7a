//! The operator on a real control plane, installed by its chart and run as the chart's account.
//!
//! Rollouts are checked at every watch event, and tests end with the check that nothing is written any more.
//!
//! A test that disturbs nobody has a namespace on a control plane and an operator that it shares, so this is its own
//! test runner: they start before the first of those tests and end with the last.

mod bills;
mod children;
mod cli;
mod diagnosis;
mod disruption;
mod examples;
mod faults;
mod frozen;
mod gitops;
mod machines;
mod meaning;
mod namespaced;
mod pace;
mod pause;
mod policies;
mod quiet;
mod quota;
mod refusals;
mod rollout;
mod scaling;
mod specs;
mod strays;
mod support;
mod wrong_input;

use std::{env, process::ExitCode, sync::Arc, thread::available_parallelism};

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{
    runtime::Runtime,
    sync::{OnceCell, Semaphore},
};

use support::{Ground, Product};

/// What a test needs. Those on one product have one operator, one stand-in for KubeVirt and one of each source of
/// figures.
#[derive(Clone, Copy)]
enum Test {
    /// A namespace.
    Shared(fn(Ground) -> LocalBoxFuture<'static, Result<()>>),
    /// A product for itself: it kills operators, loses nodes, sets what holds for all, or counts what all do.
    Alone(fn() -> LocalBoxFuture<'static, Result<()>>),
}

impl Test {
    /// How much of the machine it takes, in shared tests: those mostly wait.
    fn weight(self) -> u32 {
        match self {
            Self::Shared(_) => 1,
            Self::Alone(_) => ALONE,
        }
    }
}

/// What a control plane of its own costs, in shared tests.
const ALONE: u32 = 3;

macro_rules! test {
    (Shared $module:ident $name:ident) => {
        Test::Shared(|ground| Box::pin($module::$name(ground)))
    };
    (Alone $module:ident $name:ident) => {
        Test::Alone(|| Box::pin($module::$name()))
    };
}

/// Every test with its name.
macro_rules! tests {
    ($($kind:ident($module:ident :: $name:ident)),* $(,)?) => {
        vec![$((concat!(stringify!($module), "::", stringify!($name)), test!($kind $module $name))),*]
    };
}

/// All tests, the longest first, so that none is left alone at the end.
fn tests() -> Vec<(&'static str, Test)> {
    let mut tests = long_tests();
    tests.extend(short_tests());
    tests
}

fn long_tests() -> Vec<(&'static str, Test)> {
    tests![
        Alone(faults::killed_at_thirty_moments_of_a_rollout),
        Shared(scaling::containers_go_to_zero_and_come_back),
        Shared(scaling::virtual_machines_go_to_zero_and_come_back),
        Shared(machines::guests_that_die_at_once_are_held_back),
        Alone(scaling::the_least_busy_virtual_machines_go_whenever_the_operator_is_killed),
        Alone(machines::guests_whose_launcher_dies_are_held_back_and_the_status_is_steady),
        Shared(gitops::deletion_takes_everything_along_and_orphaning_leaves_it),
        Shared(wrong_input::strangers_of_the_same_name_are_left_alone),
        Shared(wrong_input::wrong_manifests_are_answered_with_the_field_and_the_way_out),
        Alone(scaling::the_least_busy_containers_go_whenever_the_operator_is_killed),
        Alone(quiet::from_10_to_40_seconds_after_the_last_change_only_the_lease_is_written),
        Alone(gitops::node_agents_hold_nothing_for_orphans),
        Alone(scaling::lost_metrics_hold_then_fall_back_and_come_back),
        Alone(scaling::replicas_follow_the_usage_that_agents_push),
        Alone(scaling::a_clock_that_is_set_by_an_hour_moves_nothing),
        Alone(scaling::a_restart_cuts_no_window_short),
        Alone(machines::a_change_of_the_hull_survives_the_end_of_the_operator),
        Alone(machines::the_hull_changes_in_both_directions_within_the_bounds),
        Alone(rollout::a_lost_node_is_made_up_for),
        Alone(machines::guests_of_a_lost_node_are_made_up_for),
        Alone(machines::scale_in_survives_the_end_of_the_operator_at_any_moment),
        Alone(faults::a_standby_takes_over_in_time_and_never_beside_the_leader),
        Alone(machines::virtual_machines_wait_for_kubevirt_and_go_on_by_themselves),
        Alone(machines::kubevirts_own_schemas_accept_what_is_written),
        Alone(cli::the_operator_is_reached_through_the_api_server),
        Alone(namespaced::only_the_watched_namespace_is_served),
        Alone(pace::a_workload_that_changes_all_the_time_is_held_and_others_are_not),
        Alone(faults::a_leader_that_is_asked_to_stop_hands_over_at_once),
        Shared(policies::defaults_of_a_limit_range),
        Shared(policies::the_maximum_of_a_limit_range),
        Shared(policies::a_resource_quota),
        Shared(policies::pod_security),
        Shared(policies::a_policy_that_refuses_an_image),
        Shared(policies::a_policy_that_closes_replica_sets),
        Shared(policies::a_policy_that_adds_a_sidecar),
        Shared(policies::a_policy_that_gives_other_requests),
        Shared(policies::a_webhook_for_pods_that_is_down),
        Shared(policies::a_webhook_for_pods),
        Shared(specs::what_a_deployment_runs_runs),
        Shared(diagnosis::thirty_broken_workloads_name_the_cause_and_the_way_out),
    ]
}

fn short_tests() -> Vec<(&'static str, Test)> {
    tests![
        Shared(bills::a_bill_by_request_is_what_the_scheduler_reserves),
        Shared(children::children_are_what_we_wrote),
        Shared(cli::a_person_looks_at_containers),
        Shared(cli::a_person_looks_at_virtual_machines),
        Shared(disruption::a_budget_in_numbers_works_over_a_rollout),
        Shared(disruption::a_budget_in_numbers_works_for_guests),
        Shared(examples::every_example_gets_ready),
        Shared(frozen::containers_stay_and_everything_waits),
        Shared(frozen::what_a_probe_would_kill_is_not_frozen),
        Shared(frozen::virtual_machines_are_paused_and_go_on),
        Shared(gitops::kubectl_apply_diff_and_scale),
        Shared(gitops::a_horizontal_pod_autoscaler_scales_it),
        Shared(gitops::numbers_with_a_point_are_quantities),
        Shared(machines::an_image_update_of_virtual_machines_keeps_the_bounds),
        Shared(machines::scale_in_takes_guests_that_are_not_ready),
        Shared(machines::what_kubevirt_refuses_is_told),
        Shared(machines::a_guest_that_never_gets_ready_is_rolled_back),
        Shared(machines::an_eviction_is_no_crash),
        Shared(machines::a_probe_begins_when_it_says),
        Shared(machines::guests_leave_their_service_before_they_go),
        Shared(meaning::a_template_that_means_the_same_rolls_nothing),
        Shared(pause::a_pause_of_scaling_keeps_the_count),
        Shared(pause::in_mode_hold_the_count_is_that_of_the_moment_or_of_the_user),
        Shared(pause::the_count_of_the_spec_is_reached_by_the_rates),
        Shared(pause::a_restart_replaces_every_replica_once),
        Shared(pause::what_keeps_replicas_from_becoming_ready_is_told),
        Shared(quota::a_changed_quota_restarts_nothing),
        Shared(quota::what_a_node_cannot_do_and_what_kubernetes_refuses_rolls),
        Shared(quota::a_node_without_room_for_now_is_told_and_waited_for),
        Shared(quota::knobs_of_the_agent_reach_the_launcher_pods_of_guests_that_run),
        Shared(refusals::a_full_resource_quota_is_told),
        Shared(refusals::the_maximum_of_a_limit_range_is_told),
        Shared(refusals::the_default_of_a_limit_range_makes_an_edit_roll),
        Shared(refusals::a_webhook_that_is_down_is_told),
        Shared(refusals::a_typing_error_in_a_time_zone_is_told),
        Shared(refusals::a_class_that_is_missing_stops_no_workload),
        Shared(rollout::an_image_update_keeps_the_bounds),
        Shared(rollout::the_way_back_uses_the_old_replica_set),
        Shared(rollout::scaling_and_changing_again_in_mid_rollout),
        Shared(rollout::a_paused_rollout_waits),
        Shared(rollout::an_unavailable_revision_stops_and_is_told),
        Shared(rollout::on_failure_rollback_returns),
        Shared(rollout::a_stopped_workload_keeps_its_service_and_starts_again),
        Shared(rollout::a_class_reaches_its_workloads_and_a_missing_one_is_told),
        Shared(scaling::the_least_busy_containers_go),
        Shared(scaling::the_least_busy_virtual_machines_go),
        Shared(scaling::schedules_move_the_bounds_of_containers),
        Shared(scaling::schedules_move_the_bounds_of_virtual_machines),
        Shared(strays::a_guest_that_is_quarantined_gets_no_traffic),
        Shared(strays::a_pod_that_is_no_replica_gets_no_traffic),
        Shared(scaling::recommendations_are_shown_and_not_carried_out),
    ]
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    let given = env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    let at_once = arguments.test_threads.or(given).unwrap_or(2 * available_parallelism()?.get());
    let room = Arc::new(Semaphore::new(at_once * usize::try_from(ALONE)?));
    let runtime = Arc::new(Runtime::new()?);
    // An error is kept as well: the next test would meet it again.
    let product: Arc<OnceCell<Result<Arc<Product>, String>>> = Arc::default();
    let trials = tests().into_iter().map(|(name, test)| {
        let (runtime, room, product) = (runtime.clone(), room.clone(), product.clone());
        Trial::test(name, move || {
            let outcome = runtime.block_on(async {
                let _room = room.acquire_many(test.weight()).await?;
                match test {
                    Test::Alone(run) => run().await,
                    Test::Shared(run) => {
                        let start = || async {
                            let product = Product::with_everything().await;
                            product.map(Arc::new).map_err(|error| format!("{error:#}"))
                        };
                        let product = product.get_or_init(start).await.clone();
                        let product = product.map_err(|error| anyhow!("the shared ground did not start: {error}"))?;
                        run(Ground::beside_others(product, &namespace(name)).await?).await
                    }
                }
            });
            outcome.map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    let trials: Vec<Trial> = trials.collect();
    // Each waits until there is room for it.
    arguments.test_threads = Some(trials.len());
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Before this process ends, and within its runtime: all that was started.
    let _inside = runtime.enter();
    drop(product);
    Ok(conclusion.exit_code())
}

/// The namespace of a test, after its name: a DNS label.
fn namespace(test: &str) -> String {
    let name: String = test.rsplit("::").next().unwrap_or(test).replace('_', "-").chars().take(63).collect();
    name.trim_end_matches('-').to_owned()
}
