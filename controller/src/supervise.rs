//! The tasks of a process. None may end unnoticed: a process that lacks one of its parts looks healthy and is not.

use std::{any::Any, collections::HashMap, convert::Infallible, env};

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Names a task that panics at its start, in debug builds: so a test sees what becomes of the process.
const PLANTED_PANIC: &str = "CATAMARAN_PLANT_PANIC";

/// The tasks of a process, by name. Those that still run when it is dropped are aborted.
#[derive(Debug)]
pub struct Tasks {
    stop: CancellationToken,
    set: JoinSet<Until>,
    names: HashMap<Id, String>,
}

/// Whether a task may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// The process ends.
    Process,
    /// It is done.
    Done,
}

/// A task ended that should not have, so the process cannot do what it is there for.
#[derive(Debug, thiserror::Error)]
pub enum TaskEnded {
    /// It returned.
    #[error("the task \"{0}\" ended")]
    Returned(String),
    /// It panicked.
    #[error("the task \"{name}\" panicked: {message}")]
    Panicked {
        /// The task.
        name: String,
        /// What the panic said.
        message: String,
    },
}

impl Tasks {
    /// No tasks yet. One that returns after `stop` is no fault.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, set: JoinSet::new(), names: HashMap::new() }
    }

    /// Runs a task that lasts as long as the process.
    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let own = name.clone();
        let handle = self.set.spawn(async move {
            panic_if_planted(&own);
            task.await;
            Until::Process
        });
        self.names.insert(handle.id(), name);
    }

    /// Runs a task that has an end of its own; only a panic is a fault.
    pub fn spawn_once(&mut self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let own = name.clone();
        let handle = self.set.spawn(async move {
            panic_if_planted(&own);
            task.await;
            Until::Done
        });
        self.names.insert(handle.id(), name);
    }

    /// Waits until a task ends that should not. Safe to cancel.
    pub async fn failed(&mut self) -> TaskEnded {
        loop {
            let Some(ended) = self.set.join_next_with_id().await else {
                // There is none to wait for.
                let never: Infallible = std::future::pending().await;
                match never {}
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let name = self.names.remove(&id).unwrap_or_default();
            match ended {
                Ok((_, Until::Done)) => {}
                Ok((_, Until::Process)) if self.stop.is_cancelled() => {}
                Ok((_, Until::Process)) => return TaskEnded::Returned(name),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => return TaskEnded::Panicked { name, message: message(panic.as_ref()).to_owned() },
                    // Nobody aborts one; it would be missing all the same.
                    Err(_) => return TaskEnded::Returned(name),
                },
            }
        }
    }
}

/// Panics if a test wants this task to.
pub(crate) fn panic_if_planted(name: &str) {
    let planted = cfg!(debug_assertions) && env::var(PLANTED_PANIC).is_ok_and(|planted| planted == name);
    assert!(!planted, "planted by {PLANTED_PANIC}");
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("lasts", std::future::pending());
        tasks.spawn_once("has an end", async {});
        tasks.spawn("ends", async {});
        assert!(matches!(tasks.failed().await, TaskEnded::Returned(name) if name == "ends"));
        tasks.spawn("panics", async { panic!("planted {}", 1) });
        let TaskEnded::Panicked { name, message } = tasks.failed().await else { panic!("it panicked") };
        assert_eq!((name.as_str(), message.as_str()), ("panics", "planted 1"));
        tasks.spawn_once("panics before its end", async { panic!("planted") });
        assert!(matches!(tasks.failed().await, TaskEnded::Panicked { name, .. } if name == "panics before its end"));
    }

    #[tokio::test]
    async fn what_returns_after_the_stop_is_no_fault() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        stop.cancel();
        tasks.spawn("obeys", async {});
        tasks.spawn("panics", async { panic!("planted") });
        assert!(matches!(tasks.failed().await, TaskEnded::Panicked { name, .. } if name == "panics"));
    }

    #[tokio::test]
    async fn tasks_that_run_are_waited_for() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("lasts", std::future::pending());
        tasks.spawn_once("has an end", async {});
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), tasks.failed()).await;
        assert!(waited.is_err());
    }
}
