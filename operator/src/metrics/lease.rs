//! Whether the API server answers about the lease.

use std::fmt;

use catamaran_controller::lease::Contact;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

/// Reads when the API server last answered, on a standby as well.
#[derive(Debug)]
pub struct LeaseCollector(pub Contact);

impl Collector for LeaseCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time since the API server last answered about the lease";
        let name = "catamaran_lease_answer_age";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(self.0.silent_for().as_secs_f64()).encode(metric)
    }
}
