//! What does not hold yet, by name. These lists only shrink.

/// Edges that close a circle between modules: the crate, and which module names which.
pub const CYCLES: [(&str, &str); 14] = [
    ("autoscale", "behavior -> history"),
    ("autoscale", "pods -> proposal"),
    ("autoscale", "condition -> decision"),
    ("autoscale", "decision -> history"),
    ("autoscale", "proposal -> usage"),
    ("controller", "client -> client::exchange"),
    ("controller", "client::body -> client::exchange"),
    ("controller", "lease -> lease::candidate"),
    ("operator", "autoscaler -> autoscaler::memory"),
    ("operator", "autoscaler -> observe"),
    ("operator", "http -> http::answers"),
    ("operator", "intake::connection -> intake::service"),
    ("operator", "stores::convert -> stores::pods"),
    ("operator", "stores::out_of_memory -> stores::pods"),
];

/// Functions of more than 80 lines.
pub const LONG_FUNCTIONS: [&str; 8] = [
    "autoscale/src/quantity.rs: the_table_of_apimachinery_is_read_alike",
    "autoscale/tests/rules/schedules.rs: where_clocks_change",
    "cli/tests/simulate.rs: what_cannot_be_used_is_told",
    "e2e/src/faults/forward.rs: answer",
    "e2e/src/hpa_cases/pods.rs: settle",
    "e2e/src/hpa_cases/shape.rs: draw",
    "e2e/src/kubevirt/launcher.rs: pod",
    "e2e/tests/metric_sources.rs: custom_and_external_metrics_are_what_the_adapter_says",
];

/// Files with lines of more than 120 columns. Those of crds/src are descriptions in CustomResourceDefinitions, a line
/// each.
pub const WIDE_LINES: [&str; 50] = [
    "agent/src/settings.rs",
    "agent/tests/agent.rs",
    "agent/tests/files.rs",
    "agent/tests/layout.rs",
    "autoscale/tests/rules/check.rs",
    "autoscale/tests/rules/extremes.rs",
    "autoscale/tests/rules/history.rs",
    "autoscale/tests/rules/plant.rs",
    "autoscale/tests/rules/properties.rs",
    "autoscale/tests/rules/schedules.rs",
    "autoscale/tests/rules/victims.rs",
    "cli/src/bill/ledger.rs",
    "cli/src/status/tree.rs",
    "crds/src/class.rs",
    "crds/src/container.rs",
    "crds/src/history.rs",
    "crds/src/lib.rs",
    "crds/src/names.rs",
    "crds/src/placement.rs",
    "crds/src/quota.rs",
    "crds/src/rollout.rs",
    "crds/src/scaling.rs",
    "crds/src/schema.rs",
    "crds/src/service.rs",
    "crds/src/status.rs",
    "crds/src/virtual_machine.rs",
    "crds/src/workload.rs",
    "e2e/src/control_plane/kubeconfig.rs",
    "e2e/src/kubevirt/admission.rs",
    "e2e/src/kubevirt/instances.rs",
    "e2e/src/metrics_adapter/answers.rs",
    "e2e/tests/node/security.rs",
    "e2e/tests/usage_intake.rs",
    "metering/tests/ledger.rs",
    "operator/src/apply.rs",
    "operator/src/autoscaler/mod.rs",
    "operator/src/settings.rs",
    "operator/src/sources/mod.rs",
    "operator/src/sources/turns.rs",
    "operator/src/stores/convert.rs",
    "operator/src/stores/out_of_memory.rs",
    "operator/tests/intake/decoder.rs",
    "plan/src/objects.rs",
    "plan/tests/rollout/crash_loop.rs",
    "plan/tests/rollout/oracle.rs",
    "plan/tests/rollout/properties.rs",
    "protocol/tests/node_quota.rs",
    "protocol/tests/rates.rs",
    "protocol/tests/stream.rs",
    "xtask/src/setup.rs",
];

/// Files in which too many arguments are allowed.
pub const MANY_ARGUMENTS: [&str; 0] = [];
