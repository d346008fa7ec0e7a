//! The hours of a period, in the form of [`Answer`].

use std::collections::HashMap;

use catamaran_metering::{Account, Amounts, Hour};
use catamaran_protocol::accounts::{Accounts as Answer, HourAmounts, HourOfAccount};
use jiff::Timestamp;

use super::Accounts;

/// The largest number of hours of accounts in one answer.
const MOST_ITEMS: usize = 5_000;
/// Byte-microseconds in a KiB-second.
const KIB_SECOND: u128 = 1024 * 1_000_000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    from: Timestamp,
    to: Timestamp,
    namespace: Option<String>,
    limit: usize,
    after: Option<String>,
}

/// Why there is no answer; a text for the one who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a time.
    #[error("{name} {given:?} is no time of RFC 3339, for example 2026-03-01T00:00:00Z")]
    Time {
        /// Of the parameter.
        name: &'static str,
        /// What was given.
        given: String,
    },
    /// No count.
    #[error("limit {0:?} is no number above 0")]
    Limit(String),
    /// The hour of the place is no longer kept.
    #[error("continue {0:?} is not of an answer that is still kept; ask again from the start")]
    Continue(String),
}

impl Question {
    /// From the query of a URL: `from` and `to` (RFC 3339; the beginning of the ledger and now when absent),
    /// `namespace`, `limit`, `continue`.
    ///
    /// # Errors
    /// When a parameter is not what it should be.
    pub fn read(query: Option<&str>, now: Timestamp) -> Result<Self, Refused> {
        let given: HashMap<_, _> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        let time = |name: &'static str, absent: Timestamp| match given.get(name) {
            None => Ok(absent),
            Some(text) => text.parse().map_err(|_| Refused::Time { name, given: text.to_string() }),
        };
        let limit = match given.get("limit").map(|limit| (limit, limit.parse::<usize>())) {
            None => MOST_ITEMS,
            Some((_, Ok(limit))) if limit > 0 => limit.min(MOST_ITEMS),
            Some((limit, _)) => return Err(Refused::Limit(limit.to_string())),
        };
        Ok(Self {
            from: time("from", Timestamp::UNIX_EPOCH)?,
            to: time("to", now)?,
            namespace: given.get("namespace").map(ToString::to_string),
            limit,
            after: given.get("continue").map(ToString::to_string),
        })
    }
}

impl Accounts {
    /// Answers.
    ///
    /// # Errors
    /// When the answer that is to be continued is no longer kept.
    pub fn answer(&self, replica: &str, question: &Question, now: Timestamp) -> Result<Answer, Refused> {
        self.advance(now);
        let (since, hours) = {
            let ledger = self.ledger();
            (ledger.since(), ledger.hours(question.from, question.to))
        };
        let wanted =
            |account: &Account| question.namespace.as_deref().is_none_or(|namespace| *account.namespace == *namespace);
        let mut left = hours.iter().filter(|(_, account, _)| wanted(account));
        if let Some(after) = &question.after
            && !left.any(|(hour, account, _)| place(*hour, account) == *after)
        {
            return Err(Refused::Continue(after.clone()));
        }
        let page: Vec<_> = left.by_ref().take(question.limit).collect();
        let more = left.next().is_some();
        let continue_ = page.last().filter(|_| more).map(|(hour, account, _)| place(*hour, account));
        let items = page.into_iter().map(|(hour, account, amounts)| HourOfAccount {
            start: hour.start(),
            namespace: account.namespace.to_string(),
            workload: account.workload.to_string(),
            class: account.class.as_deref().map(str::to_owned),
            hull: account.hull,
            amounts: hour_amounts(amounts),
        });
        Ok(Answer { replica: replica.to_owned(), since, items: items.collect(), continue_ })
    }
}

fn place(hour: Hour, account: &Account) -> String {
    let Account { namespace, workload, class, hull } = account;
    format!("{}/{namespace}/{workload}/{}/{hull}", hour.start().as_second(), class.as_deref().unwrap_or_default())
}

fn hour_amounts(amounts: &Amounts) -> HourAmounts {
    let kib_seconds = |byte_usec: u128| u64::try_from(byte_usec / KIB_SECOND).unwrap_or(u64::MAX);
    let Amounts {
        cpu_usage_usec,
        memory_usage_byte_usec,
        io_read_bytes,
        io_write_bytes,
        cpu_requested_usec,
        memory_requested_byte_usec,
        replica_usec,
        metered_usec,
    } = *amounts;
    HourAmounts {
        cpu_usage_usec,
        memory_usage_kib_seconds: kib_seconds(memory_usage_byte_usec),
        io_read_bytes,
        io_write_bytes,
        cpu_requested_usec,
        memory_requested_kib_seconds: kib_seconds(memory_requested_byte_usec),
        replica_usec,
        metered_usec,
    }
}
