//! The pods of a case: which states they are in, and what they request.

use super::{
    draw::Draw,
    format::{Case, Container, InitContainer, Pod, Requests, UNSET},
};

#[derive(Clone, Copy)]
enum State {
    Ready,
    Pending,
    Succeeded,
    Failed,
    NoPhase,
    Deleted,
    NoReadyCondition,
    NoStartTime,
    UnreadyNever,
    UnreadyWasReady,
    UnreadyEdge,
    InitEdge,
    FreshSampleEdge,
    HotReady,
    HotUnready,
    ZeroTime,
}

const STATES: [State; 16] = [
    State::Ready,
    State::Pending,
    State::Succeeded,
    State::Failed,
    State::NoPhase,
    State::Deleted,
    State::NoReadyCondition,
    State::NoStartTime,
    State::UnreadyNever,
    State::UnreadyWasReady,
    State::UnreadyEdge,
    State::InitEdge,
    State::FreshSampleEdge,
    State::HotReady,
    State::HotUnready,
    State::ZeroTime,
];

impl State {
    /// What a case with such a pod is tagged with.
    fn tag(self) -> Option<&'static str> {
        Some(match self {
            Self::Ready | Self::NoPhase => return None,
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Deleted => "deleted",
            Self::NoReadyCondition => "no-ready-condition",
            Self::NoStartTime => "no-start-time",
            Self::UnreadyNever => "unready-never",
            Self::UnreadyWasReady => "unready-was-ready",
            Self::UnreadyEdge => "unready-edge",
            Self::InitEdge => "init-edge",
            Self::FreshSampleEdge => "fresh-sample-edge",
            Self::HotReady => "hot-ready",
            Self::HotUnready => "hot-unready",
            Self::ZeroTime => "zero-time",
        })
    }
}

/// A pod that has long been up.
const LONG: i64 = 7_200;

/// Draws the pods of a case.
pub(super) fn draw(case: &mut Case, draw: &mut Draw) {
    let count = match draw.between(0..=99) {
        0..2 => 0,
        2..30 => case.current_replicas.saturating_add(draw.between(-2..=3)).max(0),
        _ => case.current_replicas,
    };
    // Beyond some number only time is spent.
    let count = count.min(if case.tags.contains("extreme") { draw.between(1..=6) } else { 60 });
    if count == 0 && case.current_replicas > 0 {
        case.tag("no-pods");
    }
    let few: Vec<State> = (0..draw.between(1..=3)).map(|_| draw.pick(&STATES)).collect();
    let odd = draw.pick(&[0, 0, 0, 20, 50, 100]);
    let template = Template::draw(case, draw);
    // During a rollout there are pods of two templates.
    let other = if draw.percent(15) { Template::draw(case, draw) } else { template.clone() };
    for number in 0..count {
        let state = if draw.percent(odd) { draw.pick(&few) } else { State::Ready };
        let template = if draw.percent(50) { &template } else { &other };
        let mut pod = template.pod(format!("pod-{number}"));
        settle(case, draw, &mut pod, state);
        case.pods.push(pod);
    }
}

/// A pod of no case.
pub(super) fn any() -> Pod {
    let requests = Requests { cpu_request_milli: Some(100), memory_request_bytes: Some(1 << 20) };
    let containers = vec![Container { name: "app".to_owned(), requests }];
    Template { containers, init_containers: Vec::new(), requests: None }.pod(String::new())
}

/// Puts a pod into a state.
fn settle(case: &mut Case, draw: &mut Draw, pod: &mut Pod, state: State) {
    let init = case.settings.cpu_initialization_period_seconds;
    let delay = case.settings.initial_readiness_delay_seconds;
    pod.ready = Some(true);
    pod.ready_transition_age_seconds = Some(LONG - 20);
    pod.start_age_seconds = Some(LONG);
    let mut since = |ready: bool, start: i64, transition: i64| {
        pod.ready = Some(ready);
        pod.start_age_seconds = Some(start.max(0));
        pod.ready_transition_age_seconds = Some(transition.max(0));
    };
    if let Some(tag) = state.tag() {
        case.tag(tag);
    }
    match state {
        State::Ready => {}
        State::Pending => {
            pod.phase = "Pending";
            pod.ready = draw.pick(&[None, Some(false)]);
            pod.ready_transition_age_seconds = pod.ready.map(|_| 5);
            pod.start_age_seconds = draw.pick(&[None, Some(5)]);
        }
        State::Succeeded => {
            since(false, LONG, 60);
            pod.phase = "Succeeded";
        }
        State::Failed => {
            since(false, LONG, 60);
            pod.phase = "Failed";
        }
        State::NoPhase => pod.phase = draw.pick(&["", "Unknown"]),
        State::Deleted => pod.deleted = true,
        State::NoReadyCondition => {
            pod.ready = None;
            pod.ready_transition_age_seconds = None;
        }
        State::NoStartTime => {
            pod.ready = Some(draw.percent(80));
            pod.start_age_seconds = None;
        }
        State::UnreadyNever => since(false, LONG, LONG - draw.between(0..=delay - 1)),
        State::UnreadyWasReady => since(false, LONG, draw.between(1..=LONG - delay - 1)),
        State::UnreadyEdge => since(false, LONG, draw.near(LONG - delay)),
        State::InitEdge => {
            let start = draw.near(init).max(0);
            since(draw.percent(50), start, draw.between(0..=start));
        }
        State::FreshSampleEdge => {
            let start = draw.between(init / 2..=init - 1);
            since(true, start, draw.between(15..=start.min(120)));
        }
        State::HotReady => {
            let start = draw.between(1..=init - 1);
            since(true, start, draw.between(0..=start));
        }
        State::HotUnready => {
            let start = draw.between(1..=init - 1);
            since(false, start, draw.between(0..=start));
        }
        State::ZeroTime => {
            let start = draw.pick(&[UNSET, LONG, 30]);
            since(draw.percent(50), start, draw.pick(&[UNSET, UNSET, 20]));
        }
    }
}

/// What the pods of one revision have in common.
#[derive(Clone)]
struct Template {
    containers: Vec<Container>,
    init_containers: Vec<InitContainer>,
    requests: Option<Requests>,
}

impl Template {
    fn draw(case: &mut Case, draw: &mut Draw) -> Self {
        let extreme = case.tags.contains("extreme");
        let mut containers: Vec<Container> = ["app", "sidecar", "log"]
            .into_iter()
            .take(draw.between(1..=3))
            .map(|name| container(name, draw, extreme))
            .collect();
        if draw.percent(5) {
            case.tag("missing-request");
            forget(draw, &mut containers);
        }
        let requests = draw.maybe(15, |draw| {
            case.tag("pod-level-requests");
            let whole = container("", draw, extreme).requests;
            Requests {
                cpu_request_milli: whole.cpu_request_milli.filter(|_| draw.percent(60)),
                memory_request_bytes: whole.memory_request_bytes.filter(|_| draw.percent(60)),
            }
        });
        // What a pod does not request as a whole is worked out of its containers, init containers included.
        let mut init_containers = Vec::new();
        if draw.percent(if requests.is_some() { 60 } else { 12 }) {
            for name in ["prepare", "proxy", "migrate"].into_iter().take(draw.between(1..=3)) {
                let restart_always = draw.percent(50);
                if restart_always {
                    case.tag("restartable-init");
                }
                let mut container = [container(name, draw, extreme)];
                if draw.percent(10) {
                    forget(draw, &mut container);
                }
                init_containers.extend(container.map(|container| InitContainer { container, restart_always }));
            }
        }
        Self { containers, init_containers, requests }
    }

    fn pod(&self, name: String) -> Pod {
        Pod {
            name,
            phase: "Running",
            ready: None,
            ready_transition_age_seconds: None,
            start_age_seconds: None,
            deleted: false,
            containers: self.containers.clone(),
            init_containers: self.init_containers.clone(),
            pod_requests: self.requests,
        }
    }
}

fn container(name: &str, draw: &mut Draw, extreme: bool) -> Container {
    const MI: i64 = 1 << 20;
    let (mut cpu, mut memory) = (
        draw.pick(&[1, 10, 50, 100, 100, 150, 250, 333, 500, 1_000, 1_500, 3_000]),
        draw.pick(&[1, MI, 64 * MI, 128 * MI, 128 * MI, 200_000_000, 256 * MI, 1_000 * MI, 1 << 32]),
    );
    if extreme && draw.percent(20) {
        cpu = draw.pick(&[0, i64::MAX, i64::MAX / 2, 1 << 53]);
        memory = draw.pick(&[0, i64::MAX, i64::MAX / 1_000, i64::MAX / 2_000, 1 << 53]);
    }
    Container {
        name: name.to_owned(),
        requests: Requests { cpu_request_milli: Some(cpu), memory_request_bytes: Some(memory) },
    }
}

/// Takes a request away from one of the containers.
fn forget(draw: &mut Draw, containers: &mut [Container]) {
    let which = draw.between(0..=containers.len().saturating_sub(1));
    if let Some(container) = containers.get_mut(which) {
        let lost = draw.between(1..=3);
        if lost & 1 != 0 {
            container.requests.cpu_request_milli = None;
        }
        if lost & 2 != 0 {
            container.requests.memory_request_bytes = None;
        }
    }
}
