//! How fast the count may change, as it is asked for: windows and rate policies.
//!
//! The defaults are those of `SetDefaults_HorizontalPodAutoscalerBehavior`.

/// `spec.behavior`, with nothing left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// For more replicas.
    pub up: Rules,
    /// For fewer.
    pub down: Rules,
}

impl Behavior {
    /// What the API server makes of an empty `behavior`: up by 4 or 100 % in 15 s without a window; down by 100 % in 15
    /// s, with the window of the settings.
    #[must_use]
    pub fn with_defaults(downscale_stabilization: u32) -> Self {
        let rate = |kind, value| Rate { kind, value, period: 15 };
        Self {
            up: Rules { window: 0, select: Select::Max, rates: vec![rate(Unit::Pods, 4), rate(Unit::Percent, 100)] },
            down: Rules { window: downscale_stabilization, select: Select::Max, rates: vec![rate(Unit::Percent, 100)] },
        }
    }
}

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `stabilizationWindowSeconds`: over how many seconds recommendations are looked at.
    pub window: u32,
    /// Which of the policies counts.
    pub select: Select,
    /// `policies`. Without one the count does not change in this direction.
    pub rates: Vec<Rate>,
}

impl Rules {
    /// The longest period of a policy, in seconds: what happened before does not matter.
    #[must_use]
    pub fn longest_period(&self) -> u32 {
        self.rates.iter().map(|rate| rate.period).max().unwrap_or(0)
    }
}

/// `selectPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// The policy that allows the most change.
    #[default]
    Max,
    /// The one that allows the least.
    Min,
    /// No change in this direction.
    Disabled,
}

/// A policy: how much the count may change in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What `value` counts.
    pub kind: Unit,
    /// How many.
    pub value: i32,
    /// In how many seconds.
    pub period: u32,
}

/// The unit of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Replicas.
    Pods,
    /// Percent of the replicas there were when the period began.
    Percent,
}

/// The direction of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More replicas.
    Up,
    /// Fewer.
    Down,
}

/// What limits the rate of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// This policy.
    Rate(Rate),
    /// `selectPolicy: Disabled`, or a list of policies that is empty.
    Disabled,
    /// Double the count or 4, where there is no `behavior`.
    Double,
}
