//! What a Prometheus that scrapes the operator says of a period.
//!
//! Every replica of the operator has counters of its own, from its own start, and is not there for all of an hour: an
//! increase over the hour would lack what others counted. So the hour is the sum of 120 slopes (`increase.promql`),
//! each of the counters of who led within the last five minutes. A slope goes through the samples that there are,
//! however many were lost; after a replica's end its last one stands until its successor has one, and where both have
//! one they count the same. It is right to 1 % over rolls, restarts, lost scrapes and with two replicas, for a rate
//! that is the same before and after (a test in `e2e/tests/monitoring`).

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use catamaran_crds::Hull;
use catamaran_protocol::accounts::{HourAmounts, HourOfAccount};
use form_urlencoded::Serializer;
use http::Uri;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use kube::{Client, Config};
use serde::Deserialize;

use super::period::{HOUR, Period};
use crate::connection::describe;

/// The increase of a counter within the hour before.
const INCREASE: &str = include_str!("increase.promql");
/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 << 20;

/// A counter, and where its increase goes. The factor makes the unit of the ledger out of the counter's.
struct Figure {
    name: &'static str,
    factor: f64,
    /// The most that one workload can have in an hour, in the counter's unit. More is an error of whoever counted.
    most: f64,
    field: fn(&mut HourAmounts) -> &mut u64,
}

const USEC: f64 = 1e6;
const KIB: f64 = (1_u64 << 20) as f64;

/// Of cores and of replicas: more than any cluster has. In seconds of an hour.
const MOST_UNITS: f64 = 1e7 * 3600.0;
/// An EiB all the time, in GiB x s.
const MOST_MEMORY: f64 = (1_u64 << 30) as f64 * 3600.0;
/// An EiB in an hour.
const MOST_BYTES: f64 = (1_u64 << 60) as f64;

const FIGURES: [Figure; 8] = [
    Figure { name: "cpu_usage_seconds", factor: USEC, most: MOST_UNITS, field: |amounts| &mut amounts.cpu_usage_usec },
    Figure {
        name: "memory_usage_gibibyte_seconds",
        factor: KIB,
        most: MOST_MEMORY,
        field: |amounts| &mut amounts.memory_usage_kib_seconds,
    },
    Figure { name: "io_read_bytes", factor: 1.0, most: MOST_BYTES, field: |amounts| &mut amounts.io_read_bytes },
    Figure { name: "io_written_bytes", factor: 1.0, most: MOST_BYTES, field: |amounts| &mut amounts.io_write_bytes },
    Figure {
        name: "cpu_requested_seconds",
        factor: USEC,
        most: MOST_UNITS,
        field: |amounts| &mut amounts.cpu_requested_usec,
    },
    Figure {
        name: "memory_requested_gibibyte_seconds",
        factor: KIB,
        most: MOST_MEMORY,
        field: |amounts| &mut amounts.memory_requested_kib_seconds,
    },
    Figure { name: "replica_seconds", factor: USEC, most: MOST_UNITS, field: |amounts| &mut amounts.replica_usec },
    Figure { name: "metered_seconds", factor: USEC, most: MOST_UNITS, field: |amounts| &mut amounts.metered_usec },
];

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: Labels,
    values: Vec<(f64, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
struct Labels {
    namespace: String,
    workload: String,
    class: String,
    hull: String,
}

type Hours = BTreeMap<(i64, Labels), HourAmounts>;

/// All hours of a period.
///
/// # Errors
/// When Prometheus does not answer.
pub async fn hours(url: &Uri, period: &Period, namespace: Option<&str>) -> Result<Vec<HourOfAccount>> {
    let mut config = Config::new(url.clone());
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = Some(Duration::from_secs(60));
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| anyhow!("{url}: {}", describe(&error)))?;
    let mut hours = Hours::new();
    for figure in &FIGURES {
        let text = ask(&client, &path(figure, period, namespace)).await;
        let text = text.with_context(|| format!("the Prometheus at {url} gives no answer"))?;
        enter(&mut hours, figure, &text)?;
    }
    finish(hours)
}

fn path(figure: &Figure, period: &Period, namespace: Option<&str>) -> String {
    // Names of namespaces are letters, digits and dashes; others find nothing.
    let only = namespace.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    let filter = namespace.map_or_else(String::new, |_| format!("{{namespace=\"{}\"}}", only.unwrap_or_default()));
    let name = figure.name;
    let query = INCREASE.replace("$counter", &format!("catamaran_workload_{name}_total{filter}"));
    // The value at the end of an hour is the increase within it.
    let parameters = Serializer::new(String::new())
        .append_pair("query", &query)
        .append_pair("start", &period.from.as_second().saturating_add(HOUR).to_string())
        .append_pair("end", &period.to.as_second().to_string())
        .append_pair("step", &HOUR.to_string())
        .finish();
    format!("/api/v1/query_range?{parameters}")
}

async fn ask(client: &Client, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(kube::client::Body::empty())?;
    let response = client.send(request).await.map_err(|error| anyhow!(describe(&error)))?;
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow!("the answer cannot be read: {error}"))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn enter(hours: &mut Hours, figure: &Figure, text: &str) -> Result<()> {
    let answer: Answer = serde_json::from_str(text).context("this is no answer of a Prometheus")?;
    if answer.status != "success" {
        bail!("Prometheus says: {}", answer.error);
    }
    for series in answer.data.map(|data| data.result).unwrap_or_default() {
        for (at, value) in series.values {
            let amount = amount(figure, &series.metric, at, &value)?;
            let hour = (at as i64).saturating_sub(HOUR);
            let amounts = hours.entry((hour, series.metric.clone())).or_default();
            let field = (figure.field)(amounts);
            *field = field.saturating_add(amount);
        }
    }
    Ok(())
}

/// What a value is in the unit of the ledger.
///
/// # Errors
/// When it is no number, or one that no hour of a workload can have: nobody is charged for that.
fn amount(figure: &Figure, of: &Labels, at: f64, value: &str) -> Result<u64> {
    let number: f64 = value.parse().context("a value of Prometheus is no number")?;
    if !(0.0..=figure.most).contains(&number) {
        bail!(
            "Prometheus says {value} for catamaran_workload_{}_total of {}/{} in the hour before {at}, which cannot be: correct or \
             delete that series, or choose another period",
            figure.name,
            of.namespace,
            of.workload
        );
    }
    Ok((number * figure.factor).round() as u64)
}

fn finish(hours: Hours) -> Result<Vec<HourOfAccount>> {
    let each = hours.into_iter().map(|((start, labels), amounts)| {
        let Labels { namespace, workload, class, hull } = labels;
        let hull = match hull.as_str() {
            "virtualMachine" => Hull::VirtualMachine,
            _ => Hull::Container,
        };
        let start = Timestamp::from_second(start).context("an hour within the calendar")?;
        Ok(HourOfAccount {
            start,
            namespace,
            workload,
            class: Some(class).filter(|class| !class.is_empty()),
            hull,
            amounts,
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_hours() {
        let period = Period {
            from: "2026-03-01T00:00:00Z".parse().expect("a time"),
            to: "2026-03-01T02:00:00Z".parse().expect("a time"),
        };
        let [cpu, memory, ..] = &FIGURES;
        let asked = path(cpu, &period, Some("shop"));
        assert!(asked.ends_with("&start=1772326800&end=1772330400&step=3600"), "{asked}");
        assert!(
            asked.contains("deriv%28catamaran_workload_cpu_usage_seconds_total%7Bnamespace%3D%22shop%22%7D%5B5m%5D%29")
        );
        assert!(!asked.contains("%24counter"));
        assert!(path(cpu, &period, Some("a\"} or up{x=\"")).contains("namespace%3D%22%22"));
        let answer = |value: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"namespace":"shop","workload":"web","class":"small","hull":"container"}},"values":[[1772326800,"{value}"]]}}]}}}}"#
            )
        };
        let mut hours = Hours::new();
        enter(&mut hours, cpu, &answer("60.25")).expect("an answer");
        enter(&mut hours, memory, &answer("2")).expect("an answer");
        let hours = finish(hours).expect("hours");
        assert_eq!(hours.len(), 1);
        let hour = hours.first().expect("one");
        assert_eq!((hour.start, hour.class.as_deref()), (period.from, Some("small")));
        assert_eq!((hour.amounts.cpu_usage_usec, hour.amounts.memory_usage_kib_seconds), (60_250_000, 2 << 20));
        let error = r#"{"status":"error","errorType":"bad_data","error":"no such thing"}"#;
        assert!(enter(&mut Hours::new(), cpu, error).expect_err("an error").to_string().contains("no such thing"));
        assert!(enter(&mut Hours::new(), cpu, "<html>").is_err());
        // What no machine can produce is named, and nobody pays for it.
        for value in ["+Inf", "Inf", "-Inf", "NaN", "1e300", "36000000001", "-1"] {
            let error = enter(&mut Hours::new(), cpu, &answer(value)).expect_err(value).to_string();
            let wanted = format!(
                "Prometheus says {value} for catamaran_workload_cpu_usage_seconds_total of shop/web in the hour before"
            );
            assert!(error.starts_with(&wanted), "{error}");
        }
    }
}
