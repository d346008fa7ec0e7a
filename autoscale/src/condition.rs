//! The conditions of autoscaling, with the reasons of the HPA where it has one.

use std::borrow::Cow;

/// A condition of autoscaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: bool,
    /// Why, as one word: those of the HPA where it has one.
    pub reason: &'static str,
    /// Why, for a human. It names no number that changes with the load, so no status is rewritten for it.
    pub message: Cow<'static, str>,
}

impl Condition {
    pub(super) fn new(
        kind: ConditionType,
        status: bool,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// The types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// Whether the count can be read and written, and is not held back by a window.
    AbleToScale,
    /// Whether the metrics give a count.
    ScalingActive,
    /// Whether a bound or a rate keeps the count from what was wanted.
    ScalingLimited,
    /// Whether it was the autoscaler that removed the last replica.
    ScaledToZero,
}

impl ConditionType {
    /// The type as written in a status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AbleToScale => "AbleToScale",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
            Self::ScaledToZero => "ScaledToZero",
        }
    }
}

/// How a decision changes the conditions; what it does not name stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The condition becomes this.
    Set(Condition),
    /// The condition goes.
    Remove(ConditionType),
}

impl Change {
    /// Which condition changes.
    #[must_use]
    pub fn kind(&self) -> ConditionType {
        match self {
            Self::Set(condition) => condition.kind,
            Self::Remove(kind) => *kind,
        }
    }
}

/// Sets a condition, in place of one of the same type.
pub(super) fn set(changes: &mut Vec<Change>, condition: Condition) {
    match changes.iter_mut().find(|change| change.kind() == condition.kind) {
        Some(change) => *change = Change::Set(condition),
        None => changes.push(Change::Set(condition)),
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// There was nothing to write.
    None,
    /// It succeeded.
    Done,
    /// It failed, for this reason.
    Failed(String),
}

/// What becomes of the condition ScaledToZero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScaledToZero {
    True,
    False,
    /// Scaling to zero is not switched on: the condition goes.
    Absent,
}

/// How a write changes the conditions.
pub(super) fn after_write(changes: &mut Vec<Change>, write: &Write, to: i32, scaled_to_zero: ScaledToZero) {
    use ConditionType as Type;
    let mut becomes = |kind, status, reason, message: Cow<'static, str>| {
        set(changes, Condition::new(kind, status, reason, message));
    };
    match write {
        Write::None => {}
        Write::Done => {
            becomes(Type::AbleToScale, true, "SucceededRescale", format!("the count was set to {to}").into());
            match scaled_to_zero {
                ScaledToZero::True => {
                    let message = "the autoscaler removed the last replica";
                    becomes(Type::ScaledToZero, true, "ScaledToZero", message.into());
                }
                ScaledToZero::False => {
                    let message = "the autoscaler did not remove the last replica";
                    becomes(Type::ScaledToZero, false, "NotScaledToZero", message.into());
                }
                ScaledToZero::Absent => changes.push(Change::Remove(Type::ScaledToZero)),
            }
        }
        Write::Failed(error) => {
            let message = format!("the count could not be set: {error}");
            becomes(Type::AbleToScale, false, "FailedUpdateScale", message.into());
        }
    }
}
