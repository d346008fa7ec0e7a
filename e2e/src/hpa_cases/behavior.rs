//! `spec.behavior`: absent, empty, in parts or whole.

use k8s_openapi::{
    api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{draw::Draw, format::Case};

/// Periods and windows in seconds.
pub(super) const PERIODS: [i32; 7] = [15, 30, 60, 120, 300, 600, 1_800];

/// Draws the behaviour of a case.
pub(super) fn draw(case: &mut Case, draw: &mut Draw) {
    if draw.percent(25) {
        return;
    }
    let scale_up = rules(case, draw);
    let scale_down = rules(case, draw);
    let behavior = HorizontalPodAutoscalerBehavior { scale_down, scale_up };
    case.tag(if behavior == HorizontalPodAutoscalerBehavior::default() { "empty-behavior" } else { "behavior" });
    case.behavior = Some(behavior);
}

fn rules(case: &mut Case, draw: &mut Draw) -> Option<HPAScalingRules> {
    if draw.percent(25) {
        return None;
    }
    let select_policy = draw.maybe(50, |draw| draw.pick(&["Min", "Min", "Max", "Max", "Max", "Disabled"]));
    if let Some(select) = select_policy {
        case.tag(match select {
            "Min" => "select-Min",
            "Max" => "select-Max",
            _ => "select-Disabled",
        });
    }
    let tolerance = draw.maybe(30, tolerance);
    if tolerance.is_some() {
        case.tag("tolerance-per-direction");
    }
    Some(HPAScalingRules {
        policies: draw.maybe(80, |draw| {
            let count = draw.weighted(&[(1, 0), (10, 1), (10, 2), (10, 3)]);
            (0..count).map(|_| policy(case, draw)).collect()
        }),
        select_policy: select_policy.map(str::to_owned),
        stabilization_window_seconds: draw.maybe(60, |draw| draw.pick(&[0, 0, 0, 15, 60, 120, 300, 600, 3_600])),
        tolerance,
    })
}

fn tolerance(draw: &mut Draw) -> Quantity {
    let text = ["0", "10m", "50m", "0.05", "100m", "0.1", "200m", "0.25", "333m", "1", "1500m", "123456n"];
    Quantity(draw.pick(&text).to_owned())
}

fn policy(case: &mut Case, draw: &mut Draw) -> HPAScalingPolicy {
    let extreme = case.tags.contains("extreme") && draw.percent(25);
    let pods = draw.percent(50);
    case.tag(if pods { "policy-Pods" } else { "policy-Percent" });
    let value = match (extreme, pods) {
        (true, _) => draw.pick(&[1_000_000, i32::MAX - 7, i32::MAX]),
        (false, true) => draw.pick(&[1, 1, 2, 4, 10, 100]),
        (false, false) => draw.pick(&[1, 10, 25, 33, 50, 100, 100, 150, 200, 900]),
    };
    let period_seconds = if draw.percent(10) { draw.between(1..=1_800) } else { draw.pick(&PERIODS) };
    HPAScalingPolicy { period_seconds, type_: if pods { "Pods" } else { "Percent" }.to_owned(), value }
}
