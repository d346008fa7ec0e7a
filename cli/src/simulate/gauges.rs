//! What is measured of the replicas: the samples that a decision looks at.

use std::collections::BTreeMap;

use catamaran_autoscale::{
    Pod,
    samples::{NoSamples, PodSample, ResourceSample, Samples},
};
use jiff::{SignedDuration, Timestamp};

use super::{feed::Feed, trace::Trace, workload::Replica};

/// The replicas that can be measured.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// Those that are ready.
    pub pods: &'a [Pod],
    /// How many replicas were ever created: tells whether they are the same as before.
    pub created: u64,
    /// What one used on average in the last step, in millicores; `None` while none was ready.
    pub usage: Option<i64>,
}

/// When it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The row of the trace.
    pub row: usize,
    /// The time.
    pub now: Timestamp,
    /// How long the step before was, in milliseconds.
    pub step: i64,
}

/// What is measured of the replicas, for each metric.
pub struct Gauges<'a> {
    feeds: &'a [Feed],
    replica: &'a Replica,
    samples: Vec<Result<Samples, NoSamples>>,
    /// How many replicas were ever created and how many are ready, when samples of pods were last laid out.
    layout: (u64, usize),
}

impl<'a> Gauges<'a> {
    /// Nothing is measured yet.
    pub fn new(feeds: &'a [Feed], replica: &'a Replica) -> Self {
        let samples = feeds.iter().map(|_| Err(NoSamples("it was not measured yet".to_owned()))).collect();
        Self { feeds, replica, samples, layout: (0, 0) }
    }

    /// What was measured last, in the order of the metrics.
    pub fn samples(&self) -> &[Result<Samples, NoSamples>] {
        &self.samples
    }

    /// Measures at a moment. Usage is that of the step before, and values are those of the row.
    pub fn measure(&mut self, ready: &Ready<'_>, trace: &Trace, moment: Moment) {
        let Moment { row, now, step } = moment;
        let layout = (ready.created, ready.pods.len());
        let pods =
            Pods { ready: ready.pods, same: self.layout == layout, now, window: SignedDuration::from_millis(step) };
        self.layout = layout;
        for (feed, samples) in self.feeds.iter().zip(&mut self.samples) {
            let cell = feed.column().map(|column| trace.value(column, row));
            let lost = || Err(NoSamples("the trace has no value".to_owned()));
            match (*feed, cell) {
                (Feed::Demand, _) => match ready.usage.filter(|_| trace.is_measured(row)) {
                    Some(usage) => pods.use_resource(samples, self.replica, usage),
                    None if trace.is_measured(row) => *samples = Ok(Samples::Resource(BTreeMap::new())),
                    None => *samples = lost(),
                },
                (_, None | Some(None)) => *samples = lost(),
                (Feed::Memory(_), Some(Some(value))) => {
                    pods.use_resource(samples, self.replica, value);
                }
                (Feed::Shared(_), Some(Some(value))) => {
                    let share = value.checked_div(i64::try_from(ready.pods.len()).unwrap_or(i64::MAX)).unwrap_or(0);
                    pods.have(samples, share);
                }
                // Percent are in thousandths, as every value of a trace.
                (Feed::Percent(_), Some(Some(value))) => pods.have(samples, value),
                (Feed::Value(_), Some(Some(value))) => *samples = Ok(Samples::Value(value)),
                (Feed::Series(_), Some(Some(value))) => *samples = Ok(Samples::Series(vec![value])),
            }
        }
    }
}

/// The pods that get samples. Those of the same pods as before are only written over: there may be many, a hundred
/// thousand times.
struct Pods<'a> {
    ready: &'a [Pod],
    same: bool,
    now: Timestamp,
    window: SignedDuration,
}

impl Pods<'_> {
    fn each<T: Clone>(&self, sample: &T) -> BTreeMap<String, T> {
        self.ready.iter().map(|pod| (pod.name.clone(), sample.clone())).collect()
    }

    /// The same usage of the main container for each pod; sidecars use nothing.
    fn use_resource(&self, samples: &mut Result<Samples, NoSamples>, replica: &Replica, usage: i64) {
        match samples {
            Ok(Samples::Resource(known)) if self.same && known.len() == self.ready.len() => {
                for sample in known.values_mut() {
                    if let Some(value) = sample.containers.get_mut(&replica.main) {
                        *value = Some(usage);
                    }
                    sample.taken = self.now;
                }
            }
            Ok(Samples::Resource(_) | Samples::Pods(_) | Samples::Value(_) | Samples::Series(_)) | Err(_) => {
                let used = |name: &String| (name.clone(), Some(if *name == replica.main { usage } else { 0 }));
                let containers = replica.containers.iter().map(|container| used(&container.name)).collect();
                let sample = ResourceSample { containers, taken: self.now, window: self.window };
                *samples = Ok(Samples::Resource(self.each(&sample)));
            }
        }
    }

    /// The same value for each pod.
    fn have(&self, samples: &mut Result<Samples, NoSamples>, value: i64) {
        match samples {
            Ok(Samples::Pods(known)) if self.same && known.len() == self.ready.len() => {
                for sample in known.values_mut() {
                    (sample.value, sample.taken) = (value, self.now);
                }
            }
            Ok(Samples::Resource(_) | Samples::Pods(_) | Samples::Value(_) | Samples::Series(_)) | Err(_) => {
                *samples = Ok(Samples::Pods(self.each(&PodSample { value, taken: self.now, window: self.window })));
            }
        }
    }
}
