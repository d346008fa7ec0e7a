//! The controllers that the plan relies on, one pass at a time.
//!
//! Sources: `pkg/controller/replicaset/replica_set.go` (status from the list *before* scaling, victims by
//! `ActivePodsWithRanks`); for virt-controller, what was observed of it: random victims, no backoff, and a pause that
//! stops all but the status.

use catamaran_crds::Hull;
use catamaran_plan::facts::{PodQuota, Resize};

use super::{Replica, Set, Status, World};

impl World {
    /// One pass over a set.
    pub(super) fn controller(&mut self, index: usize, seed: usize) {
        let now = self.now;
        let Some(set) = self.sets.get_mut(index) else { return };
        if set.object.deleting {
            // The garbage collector: replicas first, then the set.
            set.losses += u32::try_from(set.replicas.len()).expect("few");
            set.replicas.clear();
            self.sets.remove(index);
            return;
        }
        set.object.current = true;
        set.object.status = Status {
            live: count(set.replicas.iter()),
            ready: count(set.replicas.iter().filter(|replica| replica.ready.is_some())),
            available: set.available(set.object.min_ready, now),
            pause_seen: set.object.paused,
            losses: set.losses,
        };
        if set.object.paused {
            return;
        }
        let asked = usize::try_from(set.object.asked).expect("few");
        while set.replicas.len() < asked {
            let noted = set.object.quota.containers.iter().next().map(|(_, quota)| quota.to_string());
            let quota = PodQuota {
                template: noted.filter(|_| set.hull == Hull::Container),
                ..PodQuota::from(set.object.quota.clone())
            };
            set.replicas.push(Replica {
                id: self.next_id,
                created: now,
                ready: None,
                quota,
                paused: false,
                leaving: None,
            });
            self.next_id += 1;
        }
        while set.replicas.len() > asked {
            let victim = match set.hull {
                Hull::Container => first_to_go(&set.replicas),
                Hull::VirtualMachine => seed % set.replicas.len(),
            };
            set.replicas.remove(victim);
        }
    }

    /// The kubelet of a pod that was resized. A new pod is placed where there is room, so only resizes are infeasible.
    pub(super) fn kubelet(&mut self, set: usize, replica: usize) {
        let Some(replica) = self.sets.get_mut(set).and_then(|set| set.replicas.get_mut(replica)) else { return };
        if replica.quota.resize != Resize::InProgress {
            return;
        }
        if replica.asked_limit().is_some_and(|limit| limit > NODE_MILLICORES) {
            replica.quota.resize = Resize::Infeasible("Node didn't have enough capacity: cpu".to_owned());
        } else {
            replica.quota.resize = Resize::Settled;
        }
    }
}

/// No pod can be resized to more than that.
const NODE_MILLICORES: u64 = 8000;

/// The pod that the ReplicaSet controller deletes first: not ready, then the most recently ready, then the newest.
fn first_to_go(replicas: &[Replica]) -> usize {
    (0..replicas.len())
        .min_by_key(|index| {
            let replica = &replicas[*index];
            (replica.ready.is_some(), std::cmp::Reverse(replica.ready), std::cmp::Reverse(replica.created), replica.id)
        })
        .expect("there is one")
}

impl Set {
    /// Whether a ready replica is not available yet, but for time.
    pub fn waits_to_be_available(&self, now: i64) -> bool {
        self.available(self.object.min_ready, now) < self.available(0, now)
    }

    /// Replicas that have been ready for so long.
    pub fn available(&self, min_ready: u32, now: i64) -> u32 {
        count(
            self.replicas
                .iter()
                .filter(|replica| replica.ready.is_some_and(|since| since + i64::from(min_ready) <= now)),
        )
    }
}

pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).expect("few")
}
