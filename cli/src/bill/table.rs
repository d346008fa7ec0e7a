//! The bill for people, and for programs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rust_decimal::Decimal;
use serde::Serialize;

use super::charge::{Charged, Quantities};
use crate::output::{Rows, Tone, UNKNOWN};

/// One line of the table.
#[derive(Default)]
struct Line {
    quantities: Quantities,
    cost: Option<Decimal>,
    replica_usec: u64,
    metered_usec: u64,
}

/// One line for each workload, class and hull, and the sum in each currency.
#[must_use]
pub fn table(charged: &[Charged<'_>], with_namespace: bool, colours: bool) -> String {
    let mut lines: BTreeMap<_, Line> = BTreeMap::new();
    let mut sums: BTreeMap<&str, Decimal> = BTreeMap::new();
    for one in charged {
        let hour = one.hour;
        let key = (&hour.namespace, &hour.workload, hour.class.as_deref(), hour.hull, one.currency);
        let line = lines.entry(key).or_default();
        line.quantities.add(&one.quantities);
        line.replica_usec = line.replica_usec.saturating_add(hour.amounts.replica_usec);
        line.metered_usec = line.metered_usec.saturating_add(hour.amounts.metered_usec);
        if let Some((currency, cost)) = one.currency.zip(one.cost()) {
            line.cost = Some(line.cost.unwrap_or_default().saturating_add(cost));
            let sum = sums.entry(currency).or_default();
            *sum = sum.saturating_add(cost);
        }
    }
    let mut header = vec![
        "NAME",
        "CLASS",
        "HULL",
        "REPLICA-HOURS",
        "METERED",
        "CPU-HOURS",
        "GIB-HOURS",
        "IO-GIB",
        "COST",
        "CURRENCY",
    ];
    let mut right: Vec<usize> = (3..=8).collect();
    if with_namespace {
        header.insert(0, "NAMESPACE");
        right.iter_mut().for_each(|column| *column += 1);
    }
    let mut rows = Rows::new(&header, &right, colours);
    let plain = |text: String| (text, Tone::Plain);
    for ((namespace, workload, class, hull, currency), line) in lines {
        let namespace = with_namespace.then(|| plain(namespace.clone()));
        let cells = [
            workload.clone(),
            class.unwrap_or(UNKNOWN).to_owned(),
            hull.to_string(),
            figure(hours(line.replica_usec), 2),
            share(line.metered_usec, line.replica_usec),
            figure(line.quantities.cpu_hours, 4),
            figure(line.quantities.memory_gib_hours, 4),
            figure(line.quantities.io_gib, 3),
            line.cost.map_or_else(|| UNKNOWN.to_owned(), |cost| figure(cost, 4)),
            currency.unwrap_or(UNKNOWN).to_owned(),
        ];
        rows.add(namespace.into_iter().chain(cells.map(plain)));
    }
    for (currency, sum) in sums {
        let empty = if with_namespace { 8 } else { 7 };
        let first = [plain("TOTAL".to_owned())].into_iter().chain((0..empty).map(|_| plain(String::new())));
        rows.add(first.chain([plain(figure(sum, 4)), plain(currency.to_owned())]));
    }
    rows.finish()
}

/// A number with so many digits after the point.
fn figure(number: Decimal, digits: u32) -> String {
    let mut number = number.round_dp(digits);
    number.rescale(digits);
    number.to_string()
}

fn hours(usec: u64) -> Decimal {
    Decimal::from(usec).checked_div(Decimal::from(3_600_000_000_u64)).unwrap_or_default()
}

fn share(part: u64, whole: u64) -> String {
    let percent = u128::from(part).saturating_mul(100).checked_div(u128::from(whole));
    percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{}%", percent.min(100)))
}

/// One hour of one account, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    start: String,
    namespace: &'a str,
    workload: &'a str,
    class: Option<&'a str>,
    hull: &'a str,
    by: &'a str,
    replica_hours: String,
    metered_hours: String,
    cpu_hours: String,
    memory_gib_hours: String,
    io_gib: String,
    cost: Option<String>,
    currency: Option<&'a str>,
}

fn row<'a>(one: &'a Charged<'_>) -> Row<'a> {
    let hour = one.hour;
    let text = |number: Decimal| number.round_dp(9).normalize().to_string();
    Row {
        start: hour.start.to_string(),
        namespace: &hour.namespace,
        workload: &hour.workload,
        class: hour.class.as_deref(),
        hull: hour.hull.as_str(),
        by: match one.by {
            super::Basis::Usage => "usage",
            super::Basis::Request => "request",
        },
        replica_hours: text(hours(hour.amounts.replica_usec)),
        metered_hours: text(hours(hour.amounts.metered_usec)),
        cpu_hours: text(one.quantities.cpu_hours),
        memory_gib_hours: text(one.quantities.memory_gib_hours),
        io_gib: text(one.quantities.io_gib),
        cost: one.cost().map(|cost| cost.normalize().to_string()),
        currency: one.currency,
    }
}

/// As CSV with a header.
///
/// # Errors
/// Never for text in memory.
pub fn csv(charged: &[Charged<'_>]) -> Result<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for one in charged {
        writer.serialize(row(one))?;
    }
    String::from_utf8(writer.into_inner()?).context("text")
}

/// As a JSON array.
///
/// # Errors
/// Never for text in memory.
pub fn json(charged: &[Charged<'_>]) -> Result<String> {
    Ok(serde_json::to_string_pretty(&charged.iter().map(row).collect::<Vec<_>>())? + "\n")
}

#[cfg(test)]
pub(super) mod tests {
    use catamaran_crds::Hull;
    use catamaran_protocol::accounts::{HourAmounts, HourOfAccount};

    use super::*;
    use crate::bill::{
        charge::{Basis, charge},
        price::{Price, Prices},
    };

    /// An hour of two replicas: 90 CPU-minutes, half a GiB each.
    pub fn hour(workload: &str, class: Option<&str>, start: &str) -> HourOfAccount {
        HourOfAccount {
            start: start.parse().expect("a time"),
            namespace: "shop".to_owned(),
            workload: workload.to_owned(),
            class: class.map(str::to_owned),
            hull: if workload == "db" { Hull::VirtualMachine } else { Hull::Container },
            amounts: HourAmounts {
                cpu_usage_usec: 5_400_000_000,
                memory_usage_kib_seconds: 3600 << 20,
                io_read_bytes: 1 << 30,
                io_write_bytes: 1 << 29,
                cpu_requested_usec: 3_600_000_000,
                memory_requested_kib_seconds: 7200 << 20,
                replica_usec: 7_200_000_000,
                metered_usec: 7_128_000_000,
            },
        }
    }

    pub fn prices() -> Prices {
        let price = |currency: &str, cpu: &str, memory: Option<&str>, io: Option<&str>| {
            let price = catamaran_crds::Price {
                currency: currency.to_owned(),
                cpu_hour: Some(cpu.to_owned()),
                memory_gib_hour: memory.map(str::to_owned),
                io_gib: io.map(str::to_owned),
            };
            Price::from_class(&price).expect("a price")
        };
        Prices::from([
            ("small".to_owned(), price("EUR", "0.04", Some("0.005"), Some("0.0123"))),
            ("large".to_owned(), price("USD", "0.1", None, None)),
        ])
    }

    pub fn hours_of_a_day() -> Vec<HourOfAccount> {
        let hours = ["2026-02-28T23:00:00Z", "2026-03-01T00:00:00Z"];
        let all = hours.into_iter().flat_map(|start| {
            [hour("db", Some("large"), start), hour("tool", None, start), hour("web", Some("small"), start)]
        });
        all.chain([hour("web", Some("gone"), "2026-03-01T01:00:00Z")]).collect()
    }

    #[test]
    fn hours_of_a_workload_are_one_line() {
        let (hours, prices) = (hours_of_a_day(), prices());
        let charged: Vec<_> = hours.iter().map(|hour| charge(hour, Basis::Usage, &prices)).collect();
        insta::assert_snapshot!(table(&charged, true, false));
    }

    #[test]
    fn by_request_is_another_bill() {
        let (hours, prices) = (hours_of_a_day(), prices());
        let charged: Vec<_> = hours.iter().map(|hour| charge(hour, Basis::Request, &prices)).collect();
        insta::assert_snapshot!(table(&charged, false, false));
    }

    #[test]
    fn programs_get_each_hour() {
        let (hours, prices) = (hours_of_a_day(), prices());
        let charged: Vec<_> = hours.iter().map(|hour| charge(hour, Basis::Usage, &prices)).collect();
        insta::assert_snapshot!(csv(&charged).expect("CSV"));
        let json: serde_json::Value = serde_json::from_str(&json(&charged).expect("JSON")).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(7));
        assert_eq!(json[2]["cost"], "0.08345", "{json}");
    }
}
