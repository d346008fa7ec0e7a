//! What users ask for in a simulation.

use catamaran_crds::{ElasticWorkload, Hull, OnFailure, State};
use catamaran_plan::{Goal, resolve};
use serde_json::{Value, json};

/// A spec, as far as rollouts look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    pub hull: Hull,
    /// The image's tag: another one is another revision.
    pub tag: u8,
    pub replicas: u32,
    /// `spec.quota`.
    pub quota: Value,
    /// A number or a percentage.
    pub surge: Value,
    /// A number or a percentage.
    pub unavailable: Value,
    pub min_ready: u32,
    pub deadline: u32,
    pub history: u32,
    pub paused: bool,
    pub on_failure: OnFailure,
    pub state: State,
    pub service: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            hull: Hull::Container,
            tag: 1,
            replicas: 3,
            quota: json!({ "memory": { "request": "64Mi" } }),
            surge: json!(1),
            unavailable: json!(0),
            min_ready: 0,
            deadline: 600,
            history: 10,
            paused: false,
            on_failure: OnFailure::Hold,
            state: State::Running,
            service: false,
        }
    }
}

impl Wish {
    /// The resource that says so.
    pub fn workload(&self, generation: usize) -> ElasticWorkload {
        let image = format!("registry.example/web:{}", self.tag);
        let mut spec = json!({
            self.hull.as_str(): { "image": image },
            "quota": self.quota,
            "replicas": self.replicas,
            "state": self.state,
            "rollout": {
                "maxSurge": self.surge,
                "maxUnavailable": self.unavailable,
                "minReadySeconds": self.min_ready,
                "progressDeadlineSeconds": self.deadline,
                "revisionHistoryLimit": self.history,
                "paused": self.paused,
                "onFailure": self.on_failure,
            },
        });
        if self.service {
            spec["service"] = json!({ "ports": [{ "port": 80 }] });
        }
        serde_json::from_value(json!({
            "apiVersion": "catamaran.dev/v1alpha1",
            "kind": "ElasticWorkload",
            "metadata": { "name": "web", "namespace": "shop", "uid": "workload-1", "generation": generation },
            "spec": spec,
        }))
        .expect("a workload")
    }
}

/// All that may be asked for, resolved once.
pub struct Scenario {
    pub wishes: Vec<Wish>,
    pub desired: Vec<Goal>,
    /// The distinct revisions.
    pub revisions: Vec<String>,
    /// Revisions that never get ready.
    pub broken: Vec<usize>,
    /// Whether the operator sees pods: only where quotas differ, since there are many more states with them.
    pub sees_pods: bool,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "never ready: {:?}", self.broken)?;
        self.wishes
            .iter()
            .zip(&self.desired)
            .try_for_each(|(wish, desired)| writeln!(f, "  {} is {wish:?}", desired.revision))
    }
}

impl Scenario {
    /// `broken` holds tags whose replicas never get ready.
    pub fn new(wishes: Vec<Wish>, broken: &[u8]) -> Self {
        let desired: Vec<Goal> = wishes
            .iter()
            .enumerate()
            .map(|(index, wish)| resolve(&wish.workload(index + 1), None).expect("a valid wish"))
            .collect();
        let mut revisions: Vec<String> = Vec::new();
        let mut broken_revisions = Vec::new();
        for (wish, desired) in wishes.iter().zip(&desired) {
            // A revision may get one of the other names where the first is taken.
            let others = (1..6).map(|number| desired.template.revision_beside(number));
            for name in std::iter::once(desired.revision.clone()).chain(others) {
                if revisions.contains(&name) {
                    continue;
                }
                if broken.contains(&wish.tag) {
                    broken_revisions.push(revisions.len());
                }
                revisions.push(name);
            }
        }
        let sees_pods = wishes.iter().any(|wish| wish.quota != wishes[0].quota || wish.state == State::Frozen);
        Self { wishes, desired, revisions, broken: broken_revisions, sees_pods }
    }

    /// The index of a revision.
    pub fn revision(&self, name: &str) -> usize {
        self.revisions.iter().position(|revision| revision == name).expect("a revision of the scenario")
    }
}
