//! Named checks, as /healthz and /readyz answer them.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

/// Says what is wrong, if anything is.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Checks by name. All parts of a process add theirs.
#[derive(Clone, Default)]
pub struct Checks {
    all: Arc<RwLock<Vec<(String, Check)>>>,
}

impl Checks {
    /// Adds a check. It must answer at once.
    pub fn add(&self, name: impl Into<String>, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.push((name.into(), Box::new(check)));
    }

    /// What each check says now.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        Outcome(all.iter().map(|(name, check)| (name.clone(), check())).collect())
    }
}

/// What each check said, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome(pub Vec<(String, Result<(), String>)>);

impl Outcome {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.0.iter().all(|(_, outcome)| outcome.is_ok())
    }
}

/// 200 or 503, and a line for each check, as the API server writes them.
impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let code = if self.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let line = |(name, outcome): (String, Result<(), String>)| match outcome {
            Ok(()) => format!("[+]{name} ok\n"),
            Err(problem) => format!("[-]{name}: {problem}\n"),
        };
        (code, self.0.into_iter().map(line).collect::<String>()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn one_check_that_fails_is_enough_and_is_named() {
        let (checks, broken) = (Checks::default(), Arc::new(AtomicBool::new(false)));
        assert!(checks.run().is_good(), "nothing to check");
        checks.add("stores", || Ok(()));
        let looked_at = broken.clone();
        checks.add(
            "lease",
            move || {
                if looked_at.load(Ordering::Relaxed) { Err("silent for 20 s".to_owned()) } else { Ok(()) }
            },
        );
        assert!(checks.run().is_good());
        broken.store(true, Ordering::Relaxed);
        let outcome = checks.run();
        assert!(!outcome.is_good());
        assert_eq!(outcome.0[1], ("lease".to_owned(), Err("silent for 20 s".to_owned())));
        assert_eq!(outcome.into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
