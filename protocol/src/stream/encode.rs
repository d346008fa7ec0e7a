//! From snapshots to the reports of one stream.

use std::sync::Arc;

use foldhash::HashMap;
use prost::Message;

use crate::stream::{
    identity::PodIdentity,
    limits::{CONTAINERS, MESSAGE_BYTES, PODS},
    proto,
    snapshot::Snapshot,
};

/// Bytes of pods that are told in one report; the rest follow in the next ones.
const TOLD_BYTES: usize = MESSAGE_BYTES / 4;
/// Bytes of samples in one report: what is left, less room for what frames them.
const SAMPLE_BYTES: usize = MESSAGE_BYTES - TOLD_BYTES - 16 * 1024;

/// Remembers what a stream was told, so that each pod is told once.
#[derive(Debug, Default)]
pub struct Encoder {
    sequence: u64,
    /// By uid.
    sent: HashMap<Box<str>, Sent>,
    /// Indexes below `next` that are in no use.
    free: Vec<u32>,
    next: u32,
    containers: usize,
}

#[derive(Debug)]
struct Sent {
    index: u32,
    pod: Arc<PodIdentity>,
    /// The last report whose snapshot had it.
    seen: u64,
}

/// A report, and how much of the snapshot it could not carry.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The message.
    pub report: proto::Report,
    /// Pods without a sample in it: told later, or beyond the limits.
    pub left_out: usize,
}

impl Encoder {
    /// The next report of the stream. A snapshot that is never encoded is no loss.
    pub fn encode(&mut self, snapshot: &Snapshot) -> Encoded {
        self.sequence = self.sequence.saturating_add(1);
        let mut report = proto::Report {
            sequence: self.sequence,
            monotonic_usec: u64::try_from(snapshot.taken.as_micros()).unwrap_or(u64::MAX),
            unix_usec: snapshot.unix_usec,
            gone: self.forget_others(snapshot),
            ..proto::Report::default()
        };
        let (mut told_bytes, mut sample_bytes, mut left_out) = (0_usize, 0_usize, 0_usize);
        report.samples.reserve(snapshot.pods.len());
        // By index; a pod may be in a snapshot twice.
        let mut sampled = [false; PODS];
        for reading in &snapshot.pods {
            let index = if told_bytes < TOLD_BYTES {
                self.index(reading.pod(), &mut report.pods)
            } else {
                self.known(reading.pod())
            };
            let sample = index.map(|(pod, told)| {
                told_bytes = told_bytes.saturating_add(told);
                proto::PodSample {
                    pod,
                    containers: reading.counters().to_vec(),
                    totals: reading.totals().copied(),
                    quota: reading.quota().cloned(),
                }
            });
            let fits = sample.and_then(|sample| {
                let bytes = sample_bytes.saturating_add(sample.encoded_len());
                let before = sampled.get_mut(usize::try_from(sample.pod).ok()?)?;
                (bytes <= SAMPLE_BYTES && !std::mem::replace(before, true)).then_some((sample, bytes))
            });
            match fits {
                Some((sample, bytes)) => {
                    sample_bytes = bytes;
                    report.samples.push(sample);
                }
                None => left_out = left_out.saturating_add(1),
            }
        }
        Encoded { report, left_out }
    }

    /// Forgets the pods that are not in the snapshot; their indexes.
    fn forget_others(&mut self, snapshot: &Snapshot) -> Vec<u32> {
        let (mut here, mut gone) = (0_usize, Vec::new());
        for reading in &snapshot.pods {
            if let Some(told) = self.sent.get_mut(reading.pod().uid())
                && told.seen != self.sequence
            {
                told.seen = self.sequence;
                here = here.saturating_add(1);
            }
        }
        if here == self.sent.len() {
            return gone;
        }
        self.sent.retain(|_, told| {
            let stays = told.seen == self.sequence;
            if !stays {
                gone.push(told.index);
                self.containers = self.containers.saturating_sub(told.pod.containers().len());
            }
            stays
        });
        self.free.extend(&gone);
        gone
    }

    /// The index of a pod that was told as it is now.
    fn known(&self, pod: &Arc<PodIdentity>) -> Option<(u32, usize)> {
        let told = self.sent.get(pod.uid())?;
        (Arc::ptr_eq(&told.pod, pod) || told.pod == *pod).then_some((told.index, 0))
    }

    /// The index of a pod, which is told now if it has to be, and the bytes that that takes. `None` beyond the limits.
    fn index(&mut self, pod: &Arc<PodIdentity>, pods: &mut Vec<proto::Pod>) -> Option<(u32, usize)> {
        if let Some(known) = self.known(pod) {
            return Some(known);
        }
        let before = self.sent.get(pod.uid());
        let containers = self
            .containers
            .saturating_sub(before.map_or(0, |told| told.pod.containers().len()))
            .saturating_add(pod.containers().len());
        if containers > CONTAINERS {
            return None;
        }
        let index = match before {
            Some(told) => told.index,
            None => match self.free.pop() {
                Some(index) => index,
                None if usize::try_from(self.next).is_ok_and(|next| next < PODS) => {
                    self.next = self.next.saturating_add(1);
                    self.next.saturating_sub(1)
                }
                None => return None,
            },
        };
        self.containers = containers;
        self.sent.insert(pod.uid().into(), Sent { index, pod: pod.clone(), seen: self.sequence });
        let containers = pod.containers().iter();
        let message = proto::Pod {
            index,
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            containers: containers
                .map(|container| proto::Container { name: container.name().to_owned(), id: container.id().to_owned() })
                .collect(),
        };
        let bytes = message.encoded_len();
        pods.push(message);
        Some((index, bytes))
    }
}
