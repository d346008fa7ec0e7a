//! One reading of everything: each file by one call, on a descriptor that is kept open.

use std::{collections::HashSet, io, path::PathBuf, sync::Arc, time::Duration};

use catamaran_protocol::stream::{
    Counters,
    identity::{ContainerIdentity, PodIdentity},
    proto::{PodTotals, Pressure, QuotaState, Throttling},
    snapshot::{PodReading, Snapshot},
};
use foldhash::{HashMap, HashMapExt};
use rustix::io::Errno;

use crate::{
    cgroup::{Buffer, Folder, Kept, Parsed},
    files::{self, CpuStat, IoStat, Stall},
    find::{self, Finder},
    layout::{ContainerId, Uid},
    pods::Pod,
    working_set::WorkingSet,
};

/// Reads what the node's pods use.
#[derive(Debug)]
pub struct Sampler {
    finder: Finder,
    pods: HashMap<Uid, SampledPod>,
    buffer: Buffer,
}

/// A snapshot, and what did not get into it.
#[derive(Debug, Default)]
pub struct Sampled {
    /// What was read.
    pub snapshot: Snapshot,
    /// Containers in it.
    pub containers: usize,
    /// Containers that run and whose cgroup is not found.
    pub missing: usize,
    /// Files that could not be read; the cgroup of a container that just ended is no error.
    pub errors: u64,
    /// Folders of kubelets that are known.
    pub bases: usize,
}

#[derive(Debug)]
struct SampledPod {
    /// As it was when `containers` were looked for.
    pod: Arc<Pod>,
    own: OwnFiles,
    containers: Vec<SampledContainer>,
    /// All containers are found and none has ended since.
    complete: bool,
    identity: Arc<PodIdentity>,
}

/// Of the pod's own cgroup.
#[derive(Debug)]
struct OwnFiles {
    folder: Folder,
    cpu_stat: Option<Parsed<Option<CpuStat>>>,
    memory_current: Option<Kept>,
    memory_events: Option<Parsed<Option<u64>>>,
    io_stat: Option<Parsed<IoStat>>,
}

#[derive(Debug)]
struct SampledContainer {
    id: ContainerId,
    identity: ContainerIdentity,
    has_cpu_limit: bool,
    cpu_stat: Parsed<Option<CpuStat>>,
    /// Of the cgroup that throttles, where that is another one.
    inner_cpu_stat: Option<Parsed<Option<CpuStat>>>,
    memory_current: Kept,
    memory_stat: Option<Kept>,
    pressure: Option<PressureFiles>,
    working_set: WorkingSet,
}

#[derive(Debug)]
struct PressureFiles {
    cpu: Parsed<Option<Stall>>,
    memory: Parsed<Option<Stall>>,
    io: Parsed<Option<Stall>>,
}

impl Sampler {
    /// Nothing is open yet. `cgroup_root` is a folder such as /sys/fs/cgroup.
    #[must_use]
    pub fn new(cgroup_root: PathBuf) -> Self {
        Self { finder: Finder::new(cgroup_root), pods: HashMap::new(), buffer: Buffer::default() }
    }

    /// Reads all containers of `pods`; `quotas` by uid go along. `now` is the time of the node's steady clock,
    /// `unix_usec` that of its wall clock.
    pub fn sample(
        &mut self,
        pods: &[Arc<Pod>],
        quotas: &HashMap<Uid, QuotaState>,
        now: Duration,
        unix_usec: i64,
    ) -> Sampled {
        let mut sampled = Sampled::default();
        if let Err(error) = self.finder.refresh(false, now) {
            tracing::debug!(%error, "the cgroup root cannot be read");
            sampled.errors = sampled.errors.saturating_add(1);
        }
        sampled.snapshot.pods.reserve(pods.len());
        let mut open = 0_usize;
        for pod in pods {
            self.find(pod, &mut sampled);
            let Some(known) = self.pods.get_mut(&pod.uid) else { continue };
            open = open.saturating_add(1);
            if let Some(reading) = known.read(&mut self.buffer, quotas.get(&pod.uid), now, &mut sampled.errors) {
                sampled.containers = sampled.containers.saturating_add(reading.counters().len());
                sampled.snapshot.pods.push(reading);
            }
        }
        if self.pods.len() > open {
            let here: HashSet<&Uid> = pods.iter().map(|pod| &pod.uid).collect();
            self.pods.retain(|uid, _| here.contains(uid));
        }
        if sampled.missing > 0 {
            // Reported above where it matters.
            let _ = self.finder.refresh(true, now);
        }
        sampled.bases = self.finder.bases();
        (sampled.snapshot.taken, sampled.snapshot.unix_usec) = (now, unix_usec);
        sampled
    }

    /// Opens what is new of a pod, and forgets what is gone.
    fn find(&mut self, pod: &Arc<Pod>, sampled: &mut Sampled) {
        let known = self.pods.get(&pod.uid);
        if known.is_some_and(|known| known.complete && Arc::ptr_eq(&known.pod, pod)) {
            return;
        }
        // One that never ran has used nothing. Of one whose containers ended, the pod's own cgroup has what they used
        // at last.
        if pod.containers.is_empty() && known.is_none() {
            return;
        }
        match self.open(pod, sampled) {
            Ok(Some(found)) => {
                self.pods.insert(pod.uid.clone(), found);
            }
            Ok(None) => {
                sampled.missing = sampled.missing.saturating_add(pod.containers.len());
                self.pods.remove(&pod.uid);
            }
            Err(error) => {
                tracing::debug!(pod = %pod.name, namespace = %pod.namespace, %error, "a pod's cgroup cannot be opened");
                sampled.errors = sampled.errors.saturating_add(1);
            }
        }
    }

    fn open(&mut self, pod: &Arc<Pod>, sampled: &mut Sampled) -> io::Result<Option<SampledPod>> {
        if let Some(SampledPod { own, containers, .. }) = self.pods.remove(&pod.uid) {
            return SampledPod::reopen(pod, own, containers, sampled).map(Some);
        }
        let Some(folder) = self.finder.pod(&pod.uid)? else { return Ok(None) };
        let own = OwnFiles::open(folder)?;
        SampledPod::reopen(pod, own, Vec::new(), sampled).map(Some)
    }
}

impl SampledPod {
    /// Keeps the containers that are still the same, and opens the others.
    fn reopen(
        pod: &Arc<Pod>,
        own: OwnFiles,
        mut before: Vec<SampledContainer>,
        sampled: &mut Sampled,
    ) -> io::Result<Self> {
        let mut containers = Vec::with_capacity(pod.containers.len());
        for container in &pod.containers {
            if let Some(position) = before.iter().position(|known| known.id == container.id) {
                let mut known = before.swap_remove(position);
                known.has_cpu_limit = container.cpu_limit_millicores.is_some();
                containers.push(known);
                continue;
            }
            match SampledContainer::open(&own.folder, container) {
                Ok(Some(found)) => containers.push(found),
                Ok(None) => sampled.missing = sampled.missing.saturating_add(1),
                Err(error) => {
                    tracing::debug!(container = %container.name, %error, "a container's cgroup cannot be opened");
                    sampled.errors = sampled.errors.saturating_add(1);
                }
            }
        }
        let identities = containers.iter().map(|container| container.identity.clone());
        let identity = PodIdentity::new(pod.namespace.clone(), pod.name.clone(), pod.uid.as_str(), identities)
            .map_err(io::Error::other)?;
        let complete = containers.len() == pod.containers.len();
        Ok(Self { pod: pod.clone(), own, containers, complete, identity: Arc::new(identity) })
    }

    /// `None` when nothing can be read: the cgroup is gone.
    fn read(
        &mut self,
        buffer: &mut Buffer,
        quota: Option<&QuotaState>,
        now: Duration,
        errors: &mut u64,
    ) -> Option<PodReading> {
        let mut counters = Vec::with_capacity(self.containers.len());
        let mut ended = false;
        self.containers.retain_mut(|container| match container.read(buffer, now) {
            Ok(read) => {
                counters.push(read);
                true
            }
            Err(error) => {
                // The kubelet's news of its end, and of its successor, are on their way.
                if !is_gone(&error) {
                    *errors = errors.saturating_add(1);
                }
                ended = true;
                false
            }
        });
        if ended {
            self.complete = false;
            let identities = self.containers.iter().map(|container| container.identity.clone());
            let pod = &self.pod;
            let identity = PodIdentity::new(pod.namespace.clone(), pod.name.clone(), pod.uid.as_str(), identities);
            self.identity = Arc::new(identity.ok()?);
        }
        let totals = self.own.read(buffer);
        if counters.is_empty() && totals.cpu_usage_usec.is_none() {
            return None;
        }
        let reading = PodReading::new(self.identity.clone(), counters)?;
        Some(reading.with(Some(totals), quota.cloned()))
    }
}

impl OwnFiles {
    fn open(folder: Folder) -> io::Result<Self> {
        Ok(Self {
            cpu_stat: folder.file("cpu.stat")?.map(Parsed::from),
            memory_current: folder.file("memory.current")?,
            memory_events: folder.file("memory.events")?.map(Parsed::from),
            io_stat: folder.file("io.stat")?.map(Parsed::from),
            folder,
        })
    }

    /// What can be read; the rest is absent.
    fn read(&mut self, buffer: &mut Buffer) -> PodTotals {
        let cpu = parsed(self.cpu_stat.as_mut(), buffer, files::cpu_stat).flatten();
        let memory_current_bytes = text(self.memory_current.as_ref(), buffer).and_then(files::single);
        let oom_kill = |text: &str| files::value(text, "oom_kill");
        let oom_kills = parsed(self.memory_events.as_mut(), buffer, oom_kill).flatten();
        let io = parsed(self.io_stat.as_mut(), buffer, files::io_stat);
        // Of interest to whom a process was killed; nobody pays for it otherwise.
        let memory_peak_bytes = oom_kills.filter(|kills| *kills > 0).and_then(|_| {
            let peak = self.folder.file("memory.peak").ok().flatten();
            text(peak.as_ref(), buffer).and_then(files::single)
        });
        PodTotals {
            cpu_usage_usec: cpu.map(|cpu| cpu.usage_usec),
            memory_current_bytes,
            io_read_bytes: io.map(|io| io.read_bytes),
            io_write_bytes: io.map(|io| io.write_bytes),
            io_read_operations: io.map(|io| io.read_operations),
            io_write_operations: io.map(|io| io.write_operations),
            oom_kills,
            memory_peak_bytes,
        }
    }
}

impl SampledContainer {
    fn open(pod: &Folder, container: &crate::pods::Container) -> io::Result<Option<Self>> {
        let Some(folder) = find::container(pod, &container.id)? else { return Ok(None) };
        let identity =
            ContainerIdentity::new(container.name.clone(), container.id.as_str()).map_err(io::Error::other)?;
        let (Some(cpu_stat), Some(memory_current)) = (folder.file("cpu.stat")?, folder.file("memory.current")?) else {
            return Ok(None);
        };
        let pressure = [folder.file("cpu.pressure")?, folder.file("memory.pressure")?, folder.file("io.pressure")?];
        let pressure = match pressure {
            [Some(cpu), Some(memory), Some(io)] => {
                Some(PressureFiles { cpu: cpu.into(), memory: memory.into(), io: io.into() })
            }
            _ => None,
        };
        Ok(Some(Self {
            id: container.id.clone(),
            identity,
            has_cpu_limit: container.cpu_limit_millicores.is_some(),
            cpu_stat: cpu_stat.into(),
            inner_cpu_stat: match find::inner_limit(&folder)? {
                Some(inner) => inner.file("cpu.stat")?.map(Parsed::from),
                None => None,
            },
            memory_current,
            memory_stat: folder.file("memory.stat")?,
            pressure,
            working_set: WorkingSet::default(),
        }))
    }

    fn read(&mut self, buffer: &mut Buffer, now: Duration) -> io::Result<Counters> {
        let wrong = |file: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{file} is of another form"));
        let cpu = self.cpu_stat.read(buffer, files::cpu_stat)?.ok_or_else(|| wrong("cpu.stat"))?;
        let current = files::single(self.memory_current.read(buffer)?).ok_or_else(|| wrong("memory.current"))?;
        if let Some(memory_stat) = self.memory_stat.as_ref().filter(|_| self.working_set.is_due(current, now)) {
            let inactive_file = files::value(memory_stat.read(buffer)?, "inactive_file").unwrap_or_default();
            self.working_set.read(current, inactive_file, now);
        }
        let pressure = match &mut self.pressure {
            Some(pressure) => match pressure.read(buffer) {
                // The kernel was started with psi=0: its files are there and say so.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {
                    self.pressure = None;
                    None
                }
                read => read?,
            },
            None => None,
        };
        let throttled = match &mut self.inner_cpu_stat {
            Some(inner) => inner.read(buffer, files::cpu_stat)?.ok_or_else(|| wrong("cpu.stat"))?,
            None => cpu,
        };
        let throttling = throttled.bandwidth.filter(|_| self.has_cpu_limit).map(|bandwidth| Throttling {
            nr_periods: bandwidth.nr_periods,
            nr_throttled: bandwidth.nr_throttled,
            throttled_usec: bandwidth.throttled_usec,
        });
        let memory_working_set_bytes = self.working_set.bytes(current);
        Ok(Counters { cpu_usage_usec: cpu.usage_usec, memory_working_set_bytes, throttling, pressure })
    }
}

impl PressureFiles {
    fn read(&mut self, buffer: &mut Buffer) -> io::Result<Option<Pressure>> {
        let cpu = self.cpu.read(buffer, files::stall)?;
        let memory = self.memory.read(buffer, files::stall)?;
        let io = self.io.read(buffer, files::stall)?;
        Ok(cpu.zip(memory).zip(io).map(|((cpu, memory), io)| Pressure {
            cpu_some_usec: cpu.some_usec,
            cpu_full_usec: cpu.full_usec,
            memory_some_usec: memory.some_usec,
            memory_full_usec: memory.full_usec,
            io_some_usec: io.some_usec,
            io_full_usec: io.full_usec,
        }))
    }
}

fn parsed<T: Copy>(file: Option<&mut Parsed<T>>, buffer: &mut Buffer, parse: impl FnOnce(&str) -> T) -> Option<T> {
    file?.read(buffer, parse).ok()
}

fn text<'a>(file: Option<&Kept>, buffer: &'a mut Buffer) -> Option<&'a str> {
    file?.read(buffer).ok()
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NODEV | Errno::NOENT))
}
