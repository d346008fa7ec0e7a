//! What workloads used and had reserved, as counters. They are read from the ledger when asked.
//!
//! Every replica counts for itself, from its own start. So a sum over replicas counts twice: take the largest increase.
//! A workload's counters are there from its start, and for an hour after its end.

use std::fmt;

use catamaran_metering::{Account, Amounts};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
    registry::Unit,
};

use crate::accounting::Accounts;

/// Reads the ledger.
#[derive(Debug)]
pub struct AccountingCollector(pub Accounts);

/// Microseconds in a second.
const USEC: f64 = 1e6;
/// Bytes in a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// One counter of all accounts.
struct Figure {
    name: &'static str,
    help: &'static str,
    unit: Unit,
    value: fn(&Amounts) -> f64,
}

// Close enough: an f64 has 53 bits, and it is the format that Prometheus keeps.
#[allow(clippy::cast_precision_loss)]
fn figures() -> [Figure; 8] {
    let gib_seconds = || Unit::Other("gibibyte_seconds".to_owned());
    [
        Figure {
            name: "catamaran_workload_cpu_usage",
            help: "CPU time used by replicas, from cpu.stat of their pods",
            unit: Unit::Seconds,
            value: |amounts| amounts.cpu_usage_usec as f64 / USEC,
        },
        Figure {
            name: "catamaran_workload_memory_usage",
            help: "Working set of replicas over time",
            unit: gib_seconds(),
            value: |amounts| amounts.memory_usage_byte_usec as f64 / USEC / GIB,
        },
        Figure {
            name: "catamaran_workload_io_read",
            help: "Bytes read from block devices by replicas, from io.stat of their pods",
            unit: Unit::Bytes,
            value: |amounts| amounts.io_read_bytes as f64,
        },
        Figure {
            name: "catamaran_workload_io_written",
            help: "Bytes written to block devices by replicas, from io.stat of their pods",
            unit: Unit::Bytes,
            value: |amounts| amounts.io_write_bytes as f64,
        },
        Figure {
            name: "catamaran_workload_cpu_requested",
            help: "CPU requests of replicas over time",
            unit: Unit::Seconds,
            value: |amounts| amounts.cpu_requested_usec as f64 / USEC,
        },
        Figure {
            name: "catamaran_workload_memory_requested",
            help: "Memory requests of replicas over time",
            unit: gib_seconds(),
            value: |amounts| amounts.memory_requested_byte_usec as f64 / USEC / GIB,
        },
        Figure {
            name: "catamaran_workload_replica",
            help: "Time that replicas existed, summed over replicas",
            unit: Unit::Seconds,
            value: |amounts| amounts.replica_usec as f64 / USEC,
        },
        Figure {
            name: "catamaran_workload_metered",
            help: "The part of the replicas' time over which an agent read their memory",
            unit: Unit::Seconds,
            value: |amounts| amounts.metered_usec as f64 / USEC,
        },
    ]
}

impl Collector for AccountingCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.advance(jiff::Timestamp::now());
        let totals = self.0.totals();
        for Figure { name, help, unit, value } in figures() {
            let mut metrics = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Counter)?;
            for (Account { namespace, workload, class, hull }, amounts) in &totals {
                let labels = [
                    ("namespace", namespace.as_ref()),
                    ("workload", workload.as_ref()),
                    ("class", class.as_deref().unwrap_or_default()),
                    ("hull", hull.as_str()),
                ];
                ConstCounter::new(value(amounts)).encode(metrics.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
