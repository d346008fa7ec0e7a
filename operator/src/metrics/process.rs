//! What the process itself uses, under the names that all clients of Prometheus give it. Read when asked; on Linux
//! alone.

use std::fmt;

use procfs::{ProcResult, process::Process};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Reads `/proc/self`.
#[derive(Debug)]
pub(super) struct ProcessCollector;

struct Used {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_files: usize,
}

impl Used {
    fn now() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = stat.utime.saturating_add(stat.stime);
        Ok(Self {
            // Exact for ages: an f64 has 53 bits.
            #[allow(clippy::cast_precision_loss)]
            cpu_seconds: ticks as f64 / procfs::ticks_per_second() as f64,
            resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
            open_files: process.fd_count()?,
        })
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let used = match Used::now() {
            Ok(used) => used,
            Err(error) => {
                tracing::debug!(%error, "the process cannot be looked at");
                return Ok(());
            }
        };
        let cpu = ConstCounter::new(used.cpu_seconds);
        let help = "CPU time used, in user and system mode";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        let memory = ConstGauge::new(used.resident_bytes);
        let help = "Resident memory";
        memory.encode(encoder.encode_descriptor(
            "process_resident_memory",
            help,
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?)?;
        let files = ConstGauge::new(i64::try_from(used.open_files).unwrap_or(i64::MAX));
        files.encode(encoder.encode_descriptor("process_open_fds", "Open files", None, MetricType::Gauge)?)
    }
}
