//! How a new revision replaces the old one.

use catamaran_crds::OnFailure;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How a new revision replaces the old one, with the defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutPolicy {
    max_surge: IntOrString,
    max_unavailable: IntOrString,
    /// How long a replica has to be ready before it counts as available, in seconds.
    pub min_ready_seconds: u32,
    /// After how many seconds without progress a rollout has failed.
    pub progress_deadline_seconds: u32,
    /// How many old revisions without replicas are kept.
    pub revision_history_limit: usize,
    /// Whether the rollout is paused.
    pub paused: bool,
    /// What happens when the deadline passes.
    pub on_failure: OnFailure,
}

/// The bounds of a rollout, in replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least so many replicas stay available.
    pub min_available: u32,
    /// At most so many replicas exist.
    pub max_total: u32,
}

impl RolloutPolicy {
    /// The bounds for a count of replicas. A surge is rounded up and an unavailability down; when both come out as 0
    /// one replica may be unavailable, or nothing could ever change (`ResolveFenceposts` of the Deployment controller).
    #[must_use]
    pub fn bounds(&self, replicas: u32) -> Bounds {
        let surge = resolve_count(&self.max_surge, replicas, Rounding::Up);
        let unavailable = match resolve_count(&self.max_unavailable, replicas, Rounding::Down) {
            0 if surge == 0 => 1,
            unavailable => unavailable,
        };
        Bounds { min_available: replicas.saturating_sub(unavailable), max_total: replicas.saturating_add(surge) }
    }
}

impl From<&catamaran_crds::Rollout> for RolloutPolicy {
    fn from(rollout: &catamaran_crds::Rollout) -> Self {
        let quarter = || IntOrString::String("25%".to_owned());
        let seconds =
            |value: Option<i32>, default: u32| value.map_or(default, |value| u32::try_from(value).unwrap_or(0));
        Self {
            max_surge: rollout.max_surge.clone().unwrap_or_else(quarter),
            max_unavailable: rollout.max_unavailable.clone().unwrap_or_else(quarter),
            min_ready_seconds: seconds(rollout.min_ready_seconds, 0),
            progress_deadline_seconds: seconds(rollout.progress_deadline_seconds, 600),
            revision_history_limit: rollout
                .revision_history_limit
                .map_or(10, |limit| usize::try_from(limit).unwrap_or(0)),
            paused: rollout.paused.unwrap_or(false),
            on_failure: rollout.on_failure.unwrap_or_default(),
        }
    }
}

enum Rounding {
    Up,
    Down,
}

/// A count, or a percentage of `replicas`; the schema admits nothing else, so anything else is 0.
fn resolve_count(value: &IntOrString, replicas: u32, rounding: Rounding) -> u32 {
    match value {
        IntOrString::Int(count) => u32::try_from(*count).unwrap_or(0),
        IntOrString::String(text) => {
            let percent: u64 = text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0);
            let hundredfold = percent * u64::from(replicas);
            let count = match rounding {
                Rounding::Up => hundredfold.div_ceil(100),
                Rounding::Down => hundredfold / 100,
            };
            u32::try_from(count).unwrap_or(u32::MAX)
        }
    }
}
