//! What the operator's ledger says of a period.
//!
//! Each replica of the operator keeps its own, since its start; the oldest one has most in it. Through the API server
//! any of them may answer, so the replicas are asked a few times who they are.

use anyhow::{Context, Result, bail};
use catamaran_protocol::accounts::{Accounts, HourOfAccount};
use jiff::Timestamp;

use super::Period;
use crate::{explain::segment, operator::Operator};

/// How often it is asked who is there. Of two replicas one stays unseen once in 128 times.
const ASK: usize = 8;
/// How often the chosen one is asked for a page until it is it that answers.
const ASK_AGAIN: usize = 64;

/// All hours of a period.
///
/// # Errors
/// When the operator does not answer.
pub async fn hours(operator: &Operator, period: &Period, namespace: Option<&str>) -> Result<Vec<HourOfAccount>> {
    let namespace = namespace.map_or_else(String::new, |namespace| format!("&namespace={}", segment(namespace)));
    let path = format!("/accounts?from={}&to={}{namespace}", period.from, period.to);
    let mut oldest = ask(operator, &format!("{path}&limit=1")).await?;
    for _ in 1..if operator.is_one() { 1 } else { ASK } {
        let other = ask(operator, &format!("{path}&limit=1")).await?;
        if other.since < oldest.since {
            oldest = other;
        }
    }
    if oldest.since > period.from {
        let since = round(oldest.since);
        eprintln!(
            "The operator has kept accounts since {since} only: what was used before is not in this bill (see --prometheus)."
        );
    }
    let (mut hours, mut after) = (Vec::new(), String::new());
    loop {
        let page = ask_one(operator, &oldest.replica, &format!("{path}{after}")).await?;
        let empty = page.items.is_empty();
        hours.extend(page.items);
        match page.continue_.filter(|_| !empty) {
            Some(place) => after = format!("&continue={}", segment(&place)),
            None => return Ok(hours),
        }
    }
}

async fn ask(operator: &Operator, path: &str) -> Result<Accounts> {
    serde_json::from_str(&operator.get(path).await?).context("the operator's answer cannot be read")
}

async fn ask_one(operator: &Operator, replica: &str, path: &str) -> Result<Accounts> {
    for _ in 0..ASK_AGAIN {
        let answer = ask(operator, path).await;
        match answer {
            Ok(answer) if answer.replica == replica => return Ok(answer),
            // Of another replica, which may not know the place to continue from.
            Ok(_) => {}
            Err(error) if operator.is_one() => return Err(error),
            Err(_) => {}
        }
    }
    bail!("the operator's replica {replica} does not answer any more; ask again")
}

fn round(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
