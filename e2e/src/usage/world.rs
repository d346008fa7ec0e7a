//! What pods use: the model behind the simulator. Time is an argument.
//!
//! The demand of a workload is spread evenly over its ready pods, as a Service would. A pod uses what reaches it, up to
//! its CPU limit; what is beyond is lost. Near the limit and above it, the pod is throttled and its tasks wait.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use catamaran_protocol::stream::{
    Counters,
    identity::{ContainerIdentity, PodIdentity},
    proto::{Pressure, Throttling},
    snapshot::PodReading,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::demand::Demand;

/// A period of the kernel's CPU bandwidth control.
const PERIOD: f64 = 0.1;
/// Throttling starts at this part of the limit, since work comes in bursts...
const THROTTLED_FROM: f64 = 0.8;
/// ...and there is some in every period when so much is wanted.
const THROTTLED_ALWAYS: f64 = 1.2;

/// The load of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The work that arrives.
    pub demand: Demand,
    /// What each running pod uses without any work, in cores.
    pub base_cores: f64,
    /// By how much a pod's use varies from one moment to the next: the largest deviation, as a part of it.
    pub noise: f64,
    /// The working set of each container, in bytes...
    pub memory_bytes: u64,
    /// ...and so much more for each core in use.
    pub memory_bytes_per_core: f64,
    /// The part of the time in which tasks wait for memory.
    pub memory_stall: f64,
    /// The part of the time in which tasks wait for IO.
    pub io_stall: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            demand: Demand::Constant(0.0),
            base_cores: 0.01,
            noise: 0.0,
            memory_bytes: 64 << 20,
            memory_bytes_per_core: 0.0,
            memory_stall: 0.0,
            io_stall: 0.0,
        }
    }
}

impl Load {
    /// A demand, and little else.
    #[must_use]
    pub fn with_demand(demand: Demand) -> Self {
        Self { demand, ..Self::default() }
    }

    /// A demand that does not change.
    #[must_use]
    pub fn cores(cores: f64) -> Self {
        Self::with_demand(Demand::Constant(cores))
    }
}

/// A workload by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A pod as the API server shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenPod {
    /// The workload that it belongs to.
    pub workload: WorkloadId,
    /// metadata.name.
    pub name: String,
    /// metadata.uid.
    pub uid: String,
    /// The node that it runs on.
    pub node: String,
    /// Whether work reaches it.
    pub ready: bool,
    /// Its containers by name, with the number of restarts.
    pub containers: Vec<(String, i32)>,
    /// The container that does the work.
    pub main: usize,
    /// The CPU limit of that one, in cores.
    pub limit: Option<f64>,
}

/// What goes on in a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activity {
    /// The work that arrives now, in cores.
    pub demand: f64,
    /// What its pods used, on average since the last look, in cores.
    pub used: f64,
    /// Pods that work reaches.
    pub ready: usize,
    /// Pods that run.
    pub pods: usize,
}

/// All workloads, their pods and their load.
#[derive(Debug)]
pub struct World {
    rng: StdRng,
    default: Load,
    workloads: BTreeMap<WorkloadId, Workload>,
    /// By uid.
    pods: HashMap<String, Pod>,
    nodes: BTreeMap<String, BTreeSet<String>>,
    /// Work of single pods, by their names.
    own_work: HashMap<String, f64>,
}

#[derive(Debug)]
struct Workload {
    load: Load,
    since: Duration,
    until: Duration,
    pods: BTreeSet<String>,
    /// Core-seconds used since the last look, and since when.
    used: f64,
    looked: Duration,
}

#[derive(Debug)]
struct Pod {
    seen: SeenPod,
    identity: Arc<PodIdentity>,
    /// How often a restart was simulated, on top of the restarts that the API server shows.
    lives: u32,
    containers: Vec<Usage>,
}

/// Counters that grow in fractions.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu_usec: f64,
    periods: f64,
    throttled: f64,
    throttled_usec: f64,
    cpu_some_usec: f64,
    cpu_full_usec: f64,
    memory_some_usec: f64,
    io_some_usec: f64,
    memory_bytes: f64,
}

impl World {
    /// No pods yet. `default` is the load of workloads that were given none.
    #[must_use]
    pub fn new(seed: u64, default: Load) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            default,
            workloads: BTreeMap::new(),
            pods: HashMap::new(),
            nodes: BTreeMap::new(),
            own_work: HashMap::new(),
        }
    }

    /// From now on a workload has another load.
    pub fn set_load(&mut self, id: &WorkloadId, load: Load, now: Duration) {
        self.advance(id, now);
        let workload = self.workload(id, now);
        workload.load = load;
        workload.since = now;
    }

    /// A pod is as seen from now on.
    pub fn see(&mut self, seen: SeenPod, now: Duration) {
        self.advance(&seen.workload, now);
        if self.pods.get(&seen.uid).is_some_and(|pod| pod.seen == seen) {
            return;
        }
        self.workload(&seen.workload, now).pods.insert(seen.uid.clone());
        self.nodes.entry(seen.node.clone()).or_default().insert(seen.uid.clone());
        let before = self.pods.remove(&seen.uid);
        if let Some(pod) = Pod::new(seen, before) {
            self.pods.insert(pod.seen.uid.clone(), pod);
        }
    }

    /// A pod is gone.
    pub fn remove(&mut self, uid: &str, now: Duration) {
        let Some(id) = self.pods.get(uid).map(|pod| pod.seen.workload.clone()) else { return };
        self.advance(&id, now);
        if let Some(pod) = self.pods.remove(uid) {
            self.workload(&id, now).pods.remove(uid);
            if let Some(pods) = self.nodes.get_mut(&pod.seen.node) {
                pods.remove(uid);
            }
        }
    }

    /// The uids of all pods.
    #[must_use]
    pub fn uids(&self) -> BTreeSet<String> {
        self.pods.keys().cloned().collect()
    }

    /// The nodes that have or had pods.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// What an agent reads on a node now.
    pub fn read(&mut self, node: &str, now: Duration) -> Vec<PodReading> {
        let uids = self.nodes.get(node).cloned().unwrap_or_default();
        let workloads: BTreeSet<WorkloadId> =
            uids.iter().filter_map(|uid| self.pods.get(uid)).map(|pod| pod.seen.workload.clone()).collect();
        for id in &workloads {
            self.advance(id, now);
        }
        uids.iter().filter_map(|uid| self.pods.get(uid)?.reading()).collect()
    }

    /// What goes on in a workload; the means are since the last call for it.
    pub fn activity(&mut self, id: &WorkloadId, now: Duration) -> Activity {
        self.advance(id, now);
        let Some(workload) = self.workloads.get_mut(id) else { return Activity::default() };
        let time = now.saturating_sub(workload.looked).as_secs_f64();
        let used = if time > 0.0 { workload.used / time } else { 0.0 };
        (workload.used, workload.looked) = (0.0, now);
        let ready = workload.pods.iter().filter(|uid| self.pods.get(*uid).is_some_and(|pod| pod.seen.ready)).count();
        let demand = workload.load.demand.cores(now.saturating_sub(workload.since));
        Activity { demand, used, ready, pods: workload.pods.len() }
    }

    /// Sets the counters of a pod back to zero; with `restart`, as a restart of its containers does, which gives them
    /// other ids. Whether there is such a pod.
    pub fn reset(&mut self, namespace: &str, name: &str, restart: bool) -> bool {
        let pod = self.pods.values_mut().find(|pod| pod.seen.workload.namespace == namespace && pod.seen.name == name);
        let Some(pod) = pod else { return false };
        pod.containers.fill(Usage::default());
        if restart {
            pod.lives = pod.lives.saturating_add(1);
            if let Some(identity) = pod.seen.identity(pod.lives) {
                pod.identity = Arc::new(identity);
            }
        }
        true
    }

    fn workload(&mut self, id: &WorkloadId, now: Duration) -> &mut Workload {
        self.workloads.entry(id.clone()).or_insert_with(|| Workload {
            load: self.default.clone(),
            since: now,
            until: now,
            pods: BTreeSet::new(),
            used: 0.0,
            looked: now,
        })
    }

    /// Gives one pod work of its own from now on, in cores, beside its share of the demand.
    pub fn set_own_work(&mut self, pod: &str, cores: f64) {
        self.own_work.insert(pod.to_owned(), cores);
    }

    /// Lets the pods of a workload work until now.
    fn advance(&mut self, id: &WorkloadId, now: Duration) {
        let Some(workload) = self.workloads.get_mut(id) else { return };
        let ready = workload.pods.iter().filter(|uid| self.pods.get(*uid).is_some_and(|pod| pod.seen.ready)).count();
        while workload.until < now {
            let from = workload.until.saturating_sub(workload.since);
            let end = workload.load.demand.constant_until(from).map_or(now, |end| (workload.since + end).min(now));
            let seconds = end.saturating_sub(workload.until).as_secs_f64();
            let demand = workload.load.demand.cores(from + end.saturating_sub(workload.until) / 2);
            let share = if ready == 0 { 0.0 } else { demand / ready as f64 };
            for uid in &workload.pods {
                let Some(pod) = self.pods.get_mut(uid) else { continue };
                let noise = 1.0 + workload.load.noise * self.rng.random_range(-1.0..=1.0);
                let own = self.own_work.get(&pod.seen.name).copied().unwrap_or(0.0);
                let work = if pod.seen.ready { share + own } else { 0.0 };
                workload.used += pod.work(&workload.load, work * noise.max(0.0), seconds);
            }
            workload.until = end;
        }
    }
}

impl Pod {
    /// `None` when no agent could report it.
    fn new(seen: SeenPod, before: Option<Self>) -> Option<Self> {
        let (lives, restarted) =
            before.as_ref().map_or((0, true), |pod| (pod.lives, pod.seen.containers != seen.containers));
        let identity = match &before {
            Some(pod) if !restarted => pod.identity.clone(),
            Some(_) | None => Arc::new(seen.identity(lives)?),
        };
        // A container that was restarted counts from zero.
        let containers = seen.containers.iter().enumerate().map(|(index, container)| {
            let same = before.as_ref().filter(|pod| pod.seen.containers.get(index) == Some(container));
            same.and_then(|pod| pod.containers.get(index)).copied().unwrap_or_default()
        });
        let containers = containers.collect();
        Some(Self { seen, identity, lives, containers })
    }

    /// Works for some time; the core-seconds that it used.
    fn work(&mut self, load: &Load, work: f64, seconds: f64) -> f64 {
        let (main, limit) = (self.seen.main, self.seen.limit);
        let mut total = 0.0;
        for (index, usage) in self.containers.iter_mut().enumerate() {
            let (wanted, limit) = if index == main { (load.base_cores + work, limit) } else { (load.base_cores, None) };
            let used = limit.map_or(wanted, |limit| wanted.min(limit));
            let usec = seconds * 1e6;
            usage.cpu_usec += used * usec;
            usage.memory_bytes = load.memory_bytes as f64 + load.memory_bytes_per_core * used;
            usage.memory_some_usec += load.memory_stall.clamp(0.0, 1.0) * usec;
            usage.io_some_usec += load.io_stall.clamp(0.0, 1.0) * usec;
            if let Some(limit) = limit.filter(|_| wanted > 0.0) {
                let throttled = throttled_share(wanted / limit);
                usage.periods += seconds / PERIOD;
                usage.throttled += throttled * seconds / PERIOD;
                usage.throttled_usec += (wanted - used) * usec;
                // Some task waits whenever there is throttling; all do for the part of the work that does not fit.
                usage.cpu_some_usec += throttled * usec;
                usage.cpu_full_usec += (wanted - used) / wanted * usec;
            }
            total += used * seconds;
        }
        total
    }

    fn reading(&self) -> Option<PodReading> {
        let counters = self.containers.iter().enumerate().map(|(index, usage)| Counters {
            cpu_usage_usec: whole(usage.cpu_usec),
            memory_working_set_bytes: whole(usage.memory_bytes),
            throttling: (index == self.seen.main && self.seen.limit.is_some()).then(|| Throttling {
                nr_periods: whole(usage.periods),
                nr_throttled: whole(usage.throttled),
                throttled_usec: whole(usage.throttled_usec),
            }),
            pressure: Some(Pressure {
                cpu_some_usec: whole(usage.cpu_some_usec),
                cpu_full_usec: whole(usage.cpu_full_usec),
                memory_some_usec: whole(usage.memory_some_usec),
                io_some_usec: whole(usage.io_some_usec),
                ..Pressure::default()
            }),
        });
        PodReading::new(self.identity.clone(), counters.collect())
    }
}

impl SeenPod {
    /// What an agent would call it. KWOK gives containers no ids.
    fn identity(&self, lives: u32) -> Option<PodIdentity> {
        let containers = self.containers.iter().map(|(name, restarts)| {
            ContainerIdentity::new(name.as_str(), format!("simulated-{}-{restarts}-{lives}", self.uid))
        });
        let containers = containers.collect::<Result<Vec<_>, _>>().ok()?;
        PodIdentity::new(self.workload.namespace.as_str(), self.name.as_str(), self.uid.as_str(), containers).ok()
    }
}

/// In which part of the periods a container is stopped, by how much of its limit it wants.
fn throttled_share(wanted: f64) -> f64 {
    ((wanted - THROTTLED_FROM) / (THROTTLED_ALWAYS - THROTTLED_FROM)).clamp(0.0, 1.0)
}

/// A counter as it is read.
fn whole(value: f64) -> u64 {
    // Saturates, by the rules of `as`.
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id() -> WorkloadId {
        WorkloadId { namespace: "shop".to_owned(), name: "web".to_owned() }
    }

    fn seen(name: &str, node: &str, ready: bool) -> SeenPod {
        let containers = vec![("main".to_owned(), 0)];
        let (name, uid, node) = (name.to_owned(), format!("uid-{name}"), node.to_owned());
        SeenPod { workload: id(), name, uid, node, ready, containers, main: 0, limit: Some(1.0) }
    }

    fn world(load: Load, pods: &[SeenPod]) -> World {
        let mut world = World::new(1, Load { base_cores: 0.0, ..load });
        for pod in pods {
            world.see(pod.clone(), Duration::ZERO);
        }
        world
    }

    /// CPU seconds of each pod of a node so far.
    fn cpu(world: &mut World, node: &str, now: Duration) -> Vec<f64> {
        let readings = world.read(node, now);
        readings.iter().map(|reading| reading.counters()[0].cpu_usage_usec as f64 / 1e6).collect()
    }

    #[test]
    fn demand_is_spread_over_the_ready_pods() {
        let pods = [seen("a", "n1", true), seen("b", "n2", true), seen("c", "n2", false)];
        let mut world = world(Load::cores(1.0), &pods);
        assert_eq!(cpu(&mut world, "n1", 2 * SECOND), [1.0]);
        assert_eq!(cpu(&mut world, "n2", 2 * SECOND), [1.0, 0.0]);
        world.see(seen("c", "n2", true), 2 * SECOND);
        world.remove("uid-a", 2 * SECOND);
        assert_eq!(cpu(&mut world, "n2", 4 * SECOND), [2.0, 1.0]);
        assert_eq!(cpu(&mut world, "n1", 4 * SECOND), [0.0; 0]);
    }

    #[test]
    fn a_limit_caps_and_throttles() {
        let mut world = world(Load::cores(2.0), &[seen("a", "n1", true)]);
        let readings = world.read("n1", 10 * SECOND);
        let counters = readings[0].counters()[0];
        let throttling = counters.throttling.expect("a limit");
        assert_eq!(counters.cpu_usage_usec, 10_000_000);
        assert_eq!((throttling.nr_periods, throttling.nr_throttled), (100, 100));
        assert_eq!(counters.pressure.expect("PSI").cpu_full_usec, 5_000_000);
    }

    #[test]
    fn throttling_rises_around_the_limit() {
        assert_eq!(
            [0.0, 0.8, 1.0, 1.2, 9.0].map(|wanted| (throttled_share(wanted) * 100.0).round()),
            [0.0, 0.0, 50.0, 100.0, 100.0]
        );
    }

    #[test]
    fn a_step_between_two_readings_counts_from_its_moment() {
        let step = Demand::Step { before: 0.0, after: 0.5, at: Duration::from_millis(1_600) };
        let mut world = world(Load::with_demand(step), &[seen("a", "n1", true)]);
        assert_eq!(cpu(&mut world, "n1", SECOND), [0.0]);
        assert_eq!(cpu(&mut world, "n1", 2 * SECOND), [0.2]);
        world.set_load(&id(), Load { base_cores: 0.0, ..Load::cores(1.0) }, Duration::from_millis(2_500));
        assert_eq!(cpu(&mut world, "n1", 3 * SECOND), [0.95]);
    }

    #[test]
    fn noise_is_seeded_and_bounded() {
        let noisy = || {
            let mut world = world(Load { noise: 0.5, ..Load::cores(0.5) }, &[seen("a", "n1", true)]);
            let reads: Vec<f64> = (1..=50).map(|second| cpu(&mut world, "n1", second * SECOND)[0]).collect();
            reads
        };
        let reads = noisy();
        assert_eq!(reads, noisy());
        let rates: Vec<f64> = reads.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(rates.iter().all(|rate| (0.249..=0.751).contains(rate)), "{rates:?}");
        assert!(rates.iter().any(|rate| *rate < 0.4) && rates.iter().any(|rate| *rate > 0.6), "{rates:?}");
    }

    #[test]
    fn a_restart_gives_other_containers() {
        let mut world = world(Load::cores(0.5), &[seen("a", "n1", true)]);
        let first = world.read("n1", SECOND);
        // As the API server shows it, and as a knob.
        world.see(SeenPod { containers: vec![("main".to_owned(), 1)], ..seen("a", "n1", true) }, 2 * SECOND);
        let second = world.read("n1", 2 * SECOND);
        assert!(world.reset("shop", "a", true));
        let third = world.read("n1", 2 * SECOND);
        let ids: BTreeSet<_> =
            [&first, &second, &third].map(|reading| reading[0].pod().containers()[0].id().to_owned()).into();
        assert_eq!(ids.len(), 3);
        assert_eq!([&second, &third].map(|reading| reading[0].counters()[0].cpu_usage_usec), [0, 0]);
        // A reset keeps the id.
        assert!(world.reset("shop", "a", false) && !world.reset("shop", "z", false));
        assert_eq!(world.read("n1", 2 * SECOND)[0].pod(), third[0].pod());
    }

    #[test]
    fn activity_is_what_the_plant_does() {
        let mut world = world(Load::cores(3.0), &[seen("a", "n1", true), seen("b", "n1", false)]);
        let activity = world.activity(&id(), 4 * SECOND);
        assert_eq!(activity, Activity { demand: 3.0, used: 1.0, ready: 1, pods: 2 });
        assert_eq!(world.activity(&WorkloadId { name: "x".to_owned(), ..id() }, SECOND), Activity::default());
    }
}
