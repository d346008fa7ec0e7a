//! What the metrics API answers: values that aim at a ratio to the target, with gaps and strangers.

use std::collections::BTreeMap;

use super::{
    draw::Draw,
    format::{Case, Pod, PodUsage, PodValue, Requests, Sample, UNSET},
    pods,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Cpu,
    Memory,
}

impl Resource {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    /// A request in thousandths.
    fn of(self, requests: &Requests) -> Option<i128> {
        match self {
            Self::Cpu => requests.cpu_request_milli.map(i128::from),
            Self::Memory => requests.memory_request_bytes.map(|bytes| i128::from(bytes) * 1_000),
        }
    }
}

/// What is measured, and its target in thousandths.
pub(super) enum Measured {
    Utilization { resource: Resource, container: Option<String>, percent: i32 },
    Usage { container: Option<String>, target: i64 },
    Pods { target: i64 },
    Object { target: i64, average: bool },
    External { target: i64, average: bool },
}

/// The ratio of what is measured to its target.
pub(super) struct Aim {
    ratio: f64,
    /// Whether the values are to be at the edge, or one beside it.
    edge: bool,
    /// How far the pods are apart, as a share.
    spread: f64,
    /// How many of the pods have no sample, in percent.
    missing: u32,
}

/// Numbers at which arithmetic ends.
const VAST: [i64; 14] = [
    i64::MAX,
    i64::MAX,
    i64::MAX - 1,
    i64::MAX / 2,
    i64::MAX / 2 + 1,
    i64::MAX / 100,
    i64::MAX / 100 + 1,
    1 << 62,
    1 << 53,
    (1 << 53) + 1,
    (1 << 31) * 1_000,
    ((1 << 31) - 1) * 1_000,
    1,
    0,
];

impl Aim {
    pub(super) fn draw(case: &mut Case, draw: &mut Draw) -> Self {
        let missing = draw.weighted(&[(12, 0), (2, 10), (2, 30), (2, 60), (1, 100)]);
        if draw.percent(25) {
            case.tag("tolerance-edge");
            let up = draw.percent(50);
            let tolerance = tolerance(case, up);
            let ratio = if up { 1.0 + tolerance } else { 1.0 - tolerance };
            return Self { ratio, edge: true, spread: 0.0, missing };
        }
        let ratio = match draw.between(0..=9) {
            0 => 0.0,
            1 => 1.0,
            2..6 => draw.between(0.3..=1.0),
            6..9 => draw.between(1.0..=2.5),
            _ => draw.between(2.0..=60.0),
        };
        let ratio = if case.tags.contains("to-zero") && draw.percent(40) { 0.0 } else { ratio };
        Self { ratio, edge: false, spread: draw.pick(&[0.0, 0.05, 0.5, 1.0]), missing }
    }

    /// A value that has this ratio to a target.
    fn value(&self, draw: &mut Draw, target: i128) -> i64 {
        let spread = draw.between(-self.spread..=self.spread);
        let value = (target as f64 * self.ratio * (1.0 + spread)).round() as i64;
        if self.edge { draw.near(value) } else { value }
    }
}

/// The tolerance that counts in one direction.
fn tolerance(case: &Case, up: bool) -> f64 {
    let rules = case.behavior.as_ref().and_then(|b| if up { b.scale_up.as_ref() } else { b.scale_down.as_ref() });
    let own = rules.and_then(|rules| rules.tolerance.as_ref()).and_then(|quantity| {
        let text = quantity.0.as_str();
        let (digits, unit) = match text.strip_suffix('m') {
            Some(digits) => (digits, 1e-3),
            None => text.strip_suffix('n').map_or((text, 1.0), |digits| (digits, 1e-9)),
        };
        digits.parse::<f64>().ok().map(|number| number * unit)
    });
    own.unwrap_or(case.settings.tolerance)
}

/// Draws the answer for one metric.
pub(super) fn draw(case: &mut Case, draw: &mut Draw, measured: &Measured, aim: &Aim) -> Sample {
    let vast = case.tags.contains("extreme") && draw.percent(40);
    match measured {
        Measured::Utilization { resource, container, percent } => {
            let container = container.as_deref();
            let target = |pod: &Pod| i128::from(*percent) * requested(pod, *resource, container) / 100;
            usage(case, draw, aim, container, vast, target)
        }
        Measured::Usage { container, target } => {
            usage(case, draw, aim, container.as_deref(), vast, |_| (*target).into())
        }
        Measured::Pods { target } => values(case, draw, aim, *target, vast),
        &Measured::Object { target, average } => {
            Sample::Object { value_milli: total(case, draw, aim, target, average, vast) }
        }
        &Measured::External { target, average } => {
            let mut values = Vec::new();
            if vast {
                values
                    .extend((0..draw.between(1..=4)).map(|_| if draw.percent(15) { -1_000 } else { draw.pick(&VAST) }));
            } else {
                let total = total(case, draw, aim, target, average, false);
                let parts = draw.between(1..=3);
                values.extend((1..parts).map(|_| total / parts));
                values.push(total - total / parts * (parts - 1));
            }
            Sample::External { values_milli: values }
        }
    }
}

/// What a pod, or one container of it, requests, as far as a draw has to know.
fn requested(pod: &Pod, resource: Resource, container: Option<&str>) -> i128 {
    let whole = pod.pod_requests.as_ref().and_then(|requests| resource.of(requests)).filter(|_| container.is_none());
    whole.unwrap_or_else(|| {
        running(pod)
            .filter(|(name, _)| container.is_none_or(|container| container == *name))
            .filter_map(|(_, requests)| resource.of(requests))
            .sum()
    })
}

/// The containers that run as long as the pod.
pub(super) fn running(pod: &Pod) -> impl Iterator<Item = (&str, &Requests)> {
    let sidecars = pod.init_containers.iter().filter(|init| init.restart_always).map(|init| &init.container);
    pod.containers.iter().chain(sidecars).map(|container| (container.name.as_str(), &container.requests))
}

/// A value of one object, or the sum of a series.
fn total(case: &Case, draw: &mut Draw, aim: &Aim, target: i64, average: bool, vast: bool) -> i64 {
    if vast {
        return draw.pick(&VAST);
    }
    if draw.percent(1) {
        return draw.pick(&[-1, -1_000, i64::MIN]);
    }
    let shares = if average { i128::from(case.status_replicas.max(1)) } else { 1 };
    aim.value(draw, i128::from(target) * shares)
}

/// The names that an answer is about: most pods of the case, and now and then a stranger.
fn answered(case: &mut Case, draw: &mut Draw, aim: &Aim) -> Vec<Pod> {
    let mut pods = Vec::new();
    for pod in &case.pods {
        let missing = if pod.phase == "Pending" { aim.missing.max(70) } else { aim.missing };
        if !draw.percent(missing) {
            pods.push(pod.clone());
        }
    }
    if pods.len() < case.pods.len() {
        case.tag("missing-sample");
    }
    // Strangers, or pods that have gone since.
    if draw.percent(if case.pods.is_empty() { 50 } else { 6 }) {
        case.tag("stray-sample");
        let like = case.pods.first().cloned().unwrap_or_else(pods::any);
        pods.extend((0..draw.between(1..=2)).map(|number| Pod { name: format!("stray-{number}"), ..like.clone() }));
    }
    pods
}

/// When a sample was taken: often just where it begins to count for a pod that has just become ready.
fn age(draw: &mut Draw, pod: &Pod, window: i64) -> i64 {
    match pod.ready_transition_age_seconds {
        Some(transition) if transition <= 300 && draw.percent(60) => draw.near(transition - window).max(0),
        _ if draw.percent(1) => UNSET,
        _ => draw.between(0..=60),
    }
}

fn usage(
    case: &mut Case,
    draw: &mut Draw,
    aim: &Aim,
    container: Option<&str>,
    vast: bool,
    target: impl Fn(&Pod) -> i128,
) -> Sample {
    // One container of some pods is not reported, or without a value.
    let gap = draw.maybe(6, |draw| (draw.pick(&["app", "sidecar"]), draw.percent(50)));
    let mut answers = BTreeMap::new();
    for pod in answered(case, draw, aim) {
        let value = if vast { draw.pick(&VAST) } else { aim.value(draw, target(&pod)) };
        let mut containers = divide(draw, &pod, container, value);
        if let Some((name, null)) = gap
            && draw.percent(50)
            && let Some(value) = containers.remove(name)
        {
            case.tag("missing-container-sample");
            // Nobody reports a pod without containers.
            if null || containers.is_empty() {
                containers.insert(name.to_owned(), value.filter(|_| !null));
            }
        }
        let window = draw.pick(&[15, 30, 60]);
        answers.insert(
            pod.name.clone(),
            PodUsage { containers, age_seconds: age(draw, &pod, window), window_seconds: window },
        );
    }
    Sample::Usage { pods: answers }
}

/// Divides a value among the containers of a pod, or gives it to the one that is asked for.
fn divide(draw: &mut Draw, pod: &Pod, container: Option<&str>, value: i64) -> BTreeMap<String, Option<i64>> {
    let names: Vec<&str> = running(pod).map(|(name, _)| name).collect();
    let mut containers = BTreeMap::new();
    if let Some(asked) = container {
        for name in names {
            let value = if name == asked { value } else { draw.between(0..=2_000) };
            containers.insert(name.to_owned(), Some(value));
        }
        return containers;
    }
    let mut left = value;
    let others = names.len().saturating_sub(1) as i64;
    for name in names.iter().skip(1) {
        let part = draw.between(0..=value.max(0) / (others + 1));
        left -= part;
        containers.insert((*name).to_owned(), Some(part));
    }
    if let Some(name) = names.first() {
        containers.insert((*name).to_owned(), Some(left));
    }
    containers
}

fn values(case: &mut Case, draw: &mut Draw, aim: &Aim, target: i64, vast: bool) -> Sample {
    let mut answers = BTreeMap::new();
    for pod in answered(case, draw, aim) {
        let value_milli = match draw.between(0..=199) {
            0 => draw.pick(&[-1, -1_000]),
            _ if vast => draw.pick(&VAST),
            _ => aim.value(draw, target.into()),
        };
        let window = draw.pick(&[None, Some(15), Some(30), Some(60)]);
        let age_seconds = age(draw, &pod, window.unwrap_or(60));
        answers.insert(pod.name, PodValue { value_milli, age_seconds, window_seconds: window });
    }
    Sample::Pods { pods: answers }
}
