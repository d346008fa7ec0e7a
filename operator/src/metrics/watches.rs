//! When each watch last heard of the API server. Read when asked.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use crate::stores::Stores;

/// Reads the signs of life of all watches.
pub struct WatchCollector(pub Stores);

impl fmt::Debug for WatchCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchCollector")
    }
}

impl Collector for WatchCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time since the API server last said something about a kind: at most so old is what is known of it";
        let name = "catamaran_watch_last_sign_of_life";
        let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for sign in self.0.signs_of_life() {
            let age = ConstGauge::new(sign.age.as_secs_f64());
            age.encode(metric.encode_family(&[("kind", sign.kind.as_str())])?)?;
        }
        Ok(())
    }
}
