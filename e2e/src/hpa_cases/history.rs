//! What the controller remembers: recommendations and scale events, with ages at the ends of windows and periods.

use k8s_openapi::api::autoscaling::v2::HPAScalingRules;

use super::{
    behavior::PERIODS,
    draw::Draw,
    format::{Case, Recommendation, ScaleEvent},
};

/// Draws the history of a case.
pub(super) fn draw(case: &mut Case, draw: &mut Draw) {
    let up = case.behavior.as_ref().and_then(|behavior| behavior.scale_up.clone());
    let down = case.behavior.as_ref().and_then(|behavior| behavior.scale_down.clone());

    let windows: Vec<i64> = [&up, &down]
        .into_iter()
        .flatten()
        .filter_map(|rules| rules.stabilization_window_seconds)
        .map(i64::from)
        .chain([case.settings.downscale_stabilization_seconds])
        .collect();
    case.recommendations = recommendations(case, draw, &windows);
    case.scale_up_events = events(case, draw, &periods(up.as_ref()));
    case.scale_down_events = events(case, draw, &periods(down.as_ref()));
    if !case.scale_up_events.is_empty() || !case.scale_down_events.is_empty() {
        case.tag("scale-events");
    }
}

fn recommendations(case: &mut Case, draw: &mut Draw, windows: &[i64]) -> Option<Vec<Recommendation>> {
    if draw.percent(15) {
        case.tag("fresh-controller");
        return None;
    }
    let count = draw.weighted(&[(3, 0), (3, 1), (3, 2), (2, 4), (1, 8)]);
    let current = case.current_replicas;
    Some(
        (0..count)
            .map(|_| Recommendation {
                replicas: match draw.between(0..=9) {
                    0 => case.max,
                    1 => 0,
                    2..4 => current,
                    4 if case.tags.contains("extreme") => draw.pick(&[i32::MAX, i32::MIN, -1]),
                    _ => current.saturating_add(draw.between(-5..=5)).max(0),
                },
                age_seconds: age(case, draw, windows),
            })
            .collect(),
    )
}

fn events(case: &mut Case, draw: &mut Draw, periods: &[i64]) -> Vec<ScaleEvent> {
    // Without behaviour they are not looked at, which is to be seen as well.
    let probability = if case.behavior.is_some() { 35 } else { 5 };
    if !draw.percent(probability) {
        return Vec::new();
    }
    (0..draw.between(1..=4))
        .map(|_| ScaleEvent {
            change: if case.tags.contains("extreme") && draw.percent(20) {
                draw.pick(&[i32::MAX, i32::MAX / 2])
            } else {
                draw.between(1..=5)
            },
            age_seconds: age(case, draw, periods),
        })
        .collect()
}

/// The periods of the policies, those of the defaults included.
fn periods(rules: Option<&HPAScalingRules>) -> Vec<i64> {
    let policies = rules.and_then(|rules| rules.policies.as_deref()).unwrap_or_default();
    policies.iter().map(|policy| policy.period_seconds).chain([PERIODS[0]]).map(i64::from).collect()
}

fn age(case: &mut Case, draw: &mut Draw, edges: &[i64]) -> i64 {
    if draw.percent(35) {
        let edge = draw.pick(edges);
        let age = draw.near(edge).max(0);
        if age == edge {
            case.tag("boundary-time");
        }
        age
    } else {
        let span = draw.pick(edges).max(20) * 3 / 2;
        draw.between(0..=span)
    }
}
