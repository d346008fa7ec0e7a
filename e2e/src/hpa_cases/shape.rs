//! The frame of a case: where the count stands between its bounds, and the settings of the controller.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    draw::Draw,
    format::{Case, Condition, Settings},
};

#[derive(Clone, Copy)]
enum Shape {
    Plain,
    FromZero,
    FromOne,
    ToZero,
    Clamped,
    OutOfRange,
    DisabledAtZero,
    Extreme,
}

const SHAPES: [(u32, Shape); 8] = [
    (55, Shape::Plain),
    (9, Shape::FromZero),
    (6, Shape::FromOne),
    (8, Shape::ToZero),
    (7, Shape::Clamped),
    (3, Shape::OutOfRange),
    (2, Shape::DisabledAtZero),
    (10, Shape::Extreme),
];

/// A case without metrics, pods and history.
pub(super) fn draw(name: String, draw: &mut Draw) -> Case {
    let mut case = Case {
        name,
        tags: BTreeSet::new(),
        current_replicas: 0,
        status_replicas: 0,
        min: None,
        max: 1,
        metrics: Vec::new(),
        samples: Vec::new(),
        behavior: None,
        pods: Vec::new(),
        recommendations: None,
        scale_up_events: Vec::new(),
        scale_down_events: Vec::new(),
        initial_conditions: Vec::new(),
        settings: settings(draw),
    };
    // Shapes that are about it set it anew.
    zero_gate(&mut case, draw, 50);
    place(&mut case, draw);
    case.status_replicas = case.current_replicas;
    if draw.percent(20) {
        case.status_replicas = case.current_replicas.saturating_add(draw.between(-3..=3)).max(0);
    } else if draw.percent(2) {
        case.status_replicas = 0;
    }
    if case.status_replicas != case.current_replicas {
        case.tag("status-differs");
    }
    // A gate that is off, and conditions of the last decision, are seldom of interest.
    if draw.percent(3) {
        case.settings.feature_gates.insert("PodLevelResources", false);
    }
    if draw.percent(10) {
        case.initial_conditions.extend([
            condition("AbleToScale", "True", "ReadyForNewScale"),
            condition("ScalingActive", "False", "FailedGetResourceMetric"),
            condition("ScalingLimited", "True", "TooFewReplicas"),
        ]);
    }
    if case.initial_conditions.iter().all(|condition| condition.type_ != "ScaledToZero") && draw.percent(5) {
        scaled_to_zero(&mut case, draw);
    }
    case
}

/// Places the count between its bounds, or outside of them.
fn place(case: &mut Case, draw: &mut Draw) {
    match draw.weighted(&SHAPES) {
        Shape::Plain => {
            case.tag("plain");
            case.current_replicas = some_replicas(draw);
            case.min = draw.pick(&[None, Some(1), Some(1), Some(2)]);
            case.max = case.current_replicas + draw.between(0..=40);
        }
        Shape::FromZero => {
            case.tag("from-zero");
            case.min = draw.pick(&[Some(0), Some(0), Some(1), Some(1), Some(3), None]);
            case.max = draw.between(1..=60);
            scaled_to_zero(case, draw);
            zero_gate(case, draw, 90);
        }
        Shape::FromOne => {
            case.tag("from-one");
            case.current_replicas = 1;
            case.min = draw.pick(&[None, Some(1)]);
            case.max = draw.between(1..=20);
        }
        Shape::ToZero => {
            case.tag("to-zero");
            case.current_replicas = draw.between(1..=6);
            case.min = Some(0);
            case.max = case.current_replicas + draw.between(0..=40);
            zero_gate(case, draw, 90);
            if draw.percent(30) {
                scaled_to_zero(case, draw);
            }
        }
        Shape::Clamped => {
            case.tag("clamped");
            case.current_replicas = some_replicas(draw);
            case.min = Some((case.current_replicas - draw.between(0..=2)).max(1));
            case.max = case.current_replicas + draw.between(0..=2);
        }
        Shape::OutOfRange => {
            case.tag("out-of-range");
            let min = draw.between(1..=8);
            let max = min + draw.between(0..=8);
            case.min = Some(min);
            case.max = max;
            case.current_replicas =
                if draw.percent(50) { max + draw.between(1..=5) } else { draw.between(1..=min - 1) };
        }
        Shape::DisabledAtZero => {
            case.tag("disabled-at-zero");
            case.min = draw.pick(&[None, Some(0), Some(1)]);
            case.max = draw.between(1..=20);
            zero_gate(case, draw, 50);
            if draw.percent(40) {
                scaled_to_zero(case, draw);
            }
        }
        Shape::Extreme => {
            case.tag("extreme");
            case.current_replicas = draw.pick(&[1, 2, 3, 50, 1_000, 1_000_000_000, i32::MAX / 2 + 1, i32::MAX - 1]);
            case.min = draw.pick(&[None, Some(1), Some(2)]);
            case.max = draw.pick(&[100, 5_000, i32::MAX - 1, i32::MAX, i32::MAX]).max(case.current_replicas);
        }
    }
}

fn some_replicas(draw: &mut Draw) -> i32 {
    if draw.percent(90) { draw.between(1..=15) } else { draw.between(16..=60) }
}

fn zero_gate(case: &mut Case, draw: &mut Draw, probability: u32) {
    case.settings.feature_gates.insert("HPAScaleToZero", draw.percent(probability));
}

fn scaled_to_zero(case: &mut Case, draw: &mut Draw) {
    let (status, reason) =
        draw.weighted(&[(17, ("True", "ScaledToZero")), (2, ("False", "NotScaledToZero")), (1, ("Unknown", "Lost"))]);
    case.initial_conditions.push(condition("ScaledToZero", status, reason));
}

fn condition(type_: &str, status: &str, reason: &str) -> Condition {
    Condition { type_: type_.to_owned(), status: status.to_owned(), reason: reason.to_owned() }
}

fn settings(draw: &mut Draw) -> Settings {
    Settings {
        tolerance: draw.pick(&[0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 0.01, 0.05, 0.2, 0.5]),
        cpu_initialization_period_seconds: draw.pick(&[300, 300, 300, 300, 120, 60, 0]),
        initial_readiness_delay_seconds: draw.pick(&[30, 30, 30, 30, 10, 60, 0]),
        downscale_stabilization_seconds: draw.pick(&[300, 300, 300, 300, 60, 600, 0]),
        feature_gates: BTreeMap::new(),
    }
}
