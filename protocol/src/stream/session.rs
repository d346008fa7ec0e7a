//! What a server knows of one stream: from reports to readings, with everything checked.

use std::{sync::Arc, time::Duration};

use crate::stream::{
    identity::{ContainerIdentity, Field, InvalidIdentity, PodIdentity, check_id, check_name},
    limits::{CONTAINERS, PODS, REASON_BYTES, UNENFORCED_PER_POD},
    proto,
    snapshot::PodReading,
};

/// Remembers the pods that a stream told. Its size is bounded by [`PODS`], [`CONTAINERS`] and the lengths of texts.
#[derive(Debug, Default)]
pub struct Session {
    sequence: Option<u64>,
    /// By index.
    pods: Vec<Slot>,
    containers: usize,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    pod: Option<Arc<PodIdentity>>,
    /// The sequence of the report that had its last sample.
    sampled: Option<u64>,
}

/// The sender, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The name of the Node.
    pub node: Arc<str>,
    /// The life of its clock.
    pub boot_id: Arc<str>,
}

/// A report whose contents are in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Its number.
    pub sequence: u64,
    /// When the counters were read, by the sender's steady clock.
    pub taken: Duration,
    /// The same by its wall clock, in microseconds since 1970.
    pub unix_usec: i64,
    /// Pods that are no longer on the node; they come before `readings`.
    pub gone: Vec<Arc<PodIdentity>>,
    /// What was read.
    pub readings: Vec<PodReading>,
}

/// Why a stream is not the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first message is no hello, or a later one is no report.
    #[error("the first message must be a hello, every other one a report")]
    Order,
    /// A text is not what it should be.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// The sequence did not grow.
    #[error("sequence {0} does not come after the one before it")]
    Sequence(u64),
    /// An index is not below the limit.
    #[error("pod index {0} is not below {PODS}")]
    Index(u32),
    /// A sample or the end of a pod that was never told.
    #[error("pod index {0} was not told")]
    Unknown(u32),
    /// A pod has two samples in one report.
    #[error("pod index {0} has two samples in one report")]
    Twice(u32),
    /// Not one reading for each container.
    #[error("the sample of pod index {pod} has {given} readings for {containers} containers")]
    Readings {
        /// The pod's index.
        pod: u32,
        /// Readings in the sample.
        given: usize,
        /// Containers of the pod.
        containers: usize,
    },
    /// What is said of a pod's quota is too long, or has control characters.
    #[error("the quota of pod index {0} has more than {UNENFORCED_PER_POD} parts, or a reason that is no short text")]
    Quota(u32),
    /// More pods told or ended in one report than a node has.
    #[error("more than {PODS} pods in one report")]
    TooManyPods,
    /// Too many containers in all.
    #[error("more than {CONTAINERS} containers")]
    TooManyContainers,
}

impl Sender {
    /// The sender, from the first message.
    ///
    /// # Errors
    /// When the message is another one, or what it says cannot be.
    pub fn from_first(message: proto::StreamRequest) -> Result<Self, Malformed> {
        use proto::stream_request::Message;
        let proto::Hello { node, boot_id } = match message.message {
            Some(Message::Hello(hello)) => hello,
            Some(Message::Report(_)) | None => return Err(Malformed::Order),
        };
        check_name(&node, Field::Node)?;
        check_id(&boot_id, Field::BootId)?;
        Ok(Self { node: node.into(), boot_id: boot_id.into() })
    }
}

impl Session {
    /// The report in a message that is not the first.
    ///
    /// # Errors
    /// When it is another message, or breaks a rule. The stream is to end then: what it told is no longer certain.
    pub fn accept(&mut self, message: proto::StreamRequest) -> Result<Accepted, Malformed> {
        use proto::stream_request::Message;
        match message.message {
            Some(Message::Report(report)) => self.accept_report(report),
            Some(Message::Hello(_)) | None => Err(Malformed::Order),
        }
    }

    /// How many pods and containers are remembered.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.pods.iter().filter(|slot| slot.pod.is_some()).count(), self.containers)
    }

    fn accept_report(&mut self, report: proto::Report) -> Result<Accepted, Malformed> {
        if self.sequence.is_some_and(|last| report.sequence <= last) {
            return Err(Malformed::Sequence(report.sequence));
        }
        self.sequence = Some(report.sequence);
        if report.gone.len() > PODS || report.pods.len() > PODS {
            return Err(Malformed::TooManyPods);
        }
        let mut gone = Vec::new();
        for index in report.gone {
            gone.push(self.forget(index)?.ok_or(Malformed::Unknown(index))?);
        }
        for pod in report.pods {
            gone.extend(self.tell(pod)?);
        }
        let mut readings = Vec::with_capacity(report.samples.len().min(PODS));
        for sample in report.samples {
            readings.push(self.reading(sample, report.sequence)?);
        }
        Ok(Accepted {
            sequence: report.sequence,
            taken: Duration::from_micros(report.monotonic_usec),
            unix_usec: report.unix_usec,
            gone,
            readings,
        })
    }

    /// Frees an index; the pod that had it.
    fn forget(&mut self, index: u32) -> Result<Option<Arc<PodIdentity>>, Malformed> {
        let position = position(index)?;
        let pod = self.pods.get_mut(position).and_then(|slot| slot.pod.take());
        let containers = pod.as_ref().map_or(0, |pod| pod.containers().len());
        self.containers = self.containers.saturating_sub(containers);
        Ok(pod)
    }

    /// Learns a pod; the other pod that had its index, if one had.
    fn tell(&mut self, message: proto::Pod) -> Result<Option<Arc<PodIdentity>>, Malformed> {
        let before = self.forget(message.index)?;
        let containers = message
            .containers
            .into_iter()
            .map(|container| ContainerIdentity::new(container.name, container.id))
            .collect::<Result<Vec<_>, _>>()?;
        let pod = Arc::new(PodIdentity::new(message.namespace, message.name, message.uid, containers)?);
        self.containers = self.containers.saturating_add(pod.containers().len());
        if self.containers > CONTAINERS {
            return Err(Malformed::TooManyContainers);
        }
        let position = position(message.index)?;
        if self.pods.len() <= position {
            self.pods.resize_with(position.saturating_add(1), Slot::default);
        }
        let replaced = before.filter(|before| before.uid() != pod.uid());
        if let Some(slot) = self.pods.get_mut(position) {
            slot.pod = Some(pod);
        }
        Ok(replaced)
    }

    fn reading(&mut self, sample: proto::PodSample, sequence: u64) -> Result<PodReading, Malformed> {
        let slot = self.pods.get_mut(position(sample.pod)?).ok_or(Malformed::Unknown(sample.pod))?;
        let pod = slot.pod.clone().ok_or(Malformed::Unknown(sample.pod))?;
        if slot.sampled.replace(sequence) == Some(sequence) {
            return Err(Malformed::Twice(sample.pod));
        }
        if sample.quota.as_ref().is_some_and(|quota| !allowed(quota)) {
            return Err(Malformed::Quota(sample.pod));
        }
        let (given, containers) = (sample.containers.len(), pod.containers().len());
        let reading = PodReading::new(pod, sample.containers).ok_or(Malformed::Readings {
            pod: sample.pod,
            given,
            containers,
        })?;
        Ok(reading.with(sample.totals, sample.quota))
    }
}

fn allowed(quota: &proto::QuotaState) -> bool {
    let short = |text: &str| text.len() <= REASON_BYTES && !text.chars().any(char::is_control);
    quota.unenforced.len() <= UNENFORCED_PER_POD
        && short(&quota.refused)
        && quota.unenforced.iter().all(|part| short(&part.reason))
}

fn position(index: u32) -> Result<usize, Malformed> {
    usize::try_from(index).ok().filter(|index| *index < PODS).ok_or(Malformed::Index(index))
}
