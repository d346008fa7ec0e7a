//! The Service of a workload.

use catamaran_crds::{ServicePort, State};

/// The Service of the workload's name.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceFacts {
    /// There is none.
    Absent,
    /// It is ours.
    Owned {
        /// Its uid.
        uid: String,
        /// Its ports, defaults left out.
        ports: Vec<ServicePort>,
        /// What it selects; `None` for what we never write.
        selects: Option<Selects>,
    },
    /// It is somebody else's: never touched.
    Foreign,
}

/// A pod that carries the workload's label and is none of its replicas: one that was taken out by its labels, or that
/// somebody made beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its revision label; the replica set of that revision may take it over yet.
    pub revision: Option<String>,
}

/// What a Service of ours selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selects {
    /// The replicas of the workload.
    Replicas,
    /// Nothing, while they are frozen.
    Nothing,
}

impl Selects {
    /// What it is to select in a state.
    #[must_use]
    pub fn for_state(state: State) -> Self {
        match state {
            State::Frozen => Self::Nothing,
            State::Running | State::Stopped => Self::Replicas,
        }
    }
}
