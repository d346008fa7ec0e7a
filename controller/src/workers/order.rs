//! Who is next: keys by tenant, each at most once, and no tenant twice before the others had their turn.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    time::Instant,
};

/// What is worked on: an object of a tenant, such as a namespace.
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {
    /// Whose object it is. Tenants take turns.
    fn tenant(&self) -> &str;
}

/// The keys that wait, run, and come later.
#[derive(Debug)]
pub(super) struct Order<K> {
    /// Of each tenant that has any: the keys that are due, first come first.
    due: HashMap<Box<str>, VecDeque<K>>,
    /// The tenants with keys that are due, in the order of their turns.
    turns: VecDeque<Box<str>>,
    /// What comes later, by time and, for equal times, by number.
    later: BTreeMap<(Instant, u64), K>,
    number: u64,
    places: HashMap<K, Place>,
    /// How many keys of each tenant run.
    running: HashMap<Box<str>, usize>,
}

/// Where a key is. A key that is nowhere waits for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In `later`, there.
    Later(Instant, u64),
    Due,
    /// At work, and wanted again then, if at all.
    Running(Option<Instant>),
}

/// Which keys may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Those of all tenants.
    All,
    /// Those of tenants of which none runs.
    Idle,
}

impl<K> Default for Order<K> {
    fn default() -> Self {
        Self {
            due: HashMap::new(),
            turns: VecDeque::new(),
            later: BTreeMap::new(),
            number: 0,
            places: HashMap::new(),
            running: HashMap::new(),
        }
    }
}

impl<K: Key> Order<K> {
    /// A key is wanted at this time, unless it comes sooner anyway.
    pub(super) fn want(&mut self, key: K, at: Instant) {
        match self.places.get_mut(&key) {
            Some(Place::Due) => {}
            Some(Place::Running(again)) => *again = Some(again.map_or(at, |again| again.min(at))),
            Some(Place::Later(planned, _)) if *planned <= at => {}
            Some(&mut Place::Later(planned, number)) => {
                self.later.remove(&(planned, number));
                self.put_later(key, at);
            }
            None => self.put_later(key, at),
        }
    }

    fn put_later(&mut self, key: K, at: Instant) {
        self.number += 1;
        self.places.insert(key.clone(), Place::Later(at, self.number));
        self.later.insert((at, self.number), key);
    }

    /// The next key to work on.
    pub(super) fn start(&mut self, room: Room, now: Instant) -> Option<K> {
        self.ripen(now);
        let turn = match room {
            Room::All => 0,
            Room::Idle => self.turns.iter().position(|tenant| !self.running.contains_key(tenant))?,
        };
        let tenant = self.turns.remove(turn)?;
        let keys = self.due.get_mut(&tenant)?;
        let key = keys.pop_front()?;
        if keys.is_empty() {
            self.due.remove(&tenant);
        } else {
            self.turns.push_back(tenant.clone());
        }
        self.places.insert(key.clone(), Place::Running(None));
        *self.running.entry(tenant).or_default() += 1;
        Some(key)
    }

    /// What was to come later and is due by now.
    pub(super) fn ripen(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            let key = entry.remove();
            self.places.insert(key.clone(), Place::Due);
            let tenant: Box<str> = key.tenant().into();
            let keys = self.due.entry(tenant.clone()).or_default();
            if keys.is_empty() {
                self.turns.push_back(tenant);
            }
            keys.push_back(key);
        }
    }

    /// The work on a key ended; it is wanted again then, or sooner if it was wanted meanwhile.
    pub(super) fn end(&mut self, key: &K, again: Option<Instant>) {
        let Some(Place::Running(meanwhile)) = self.places.remove(key) else { return };
        if let Some(running) = self.running.get_mut(key.tenant()) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(key.tenant());
            }
        }
        if let Some(at) = [meanwhile, again].into_iter().flatten().min() {
            self.put_later(key.clone(), at);
        }
    }

    /// When the next key is due that is not yet.
    pub(super) fn next(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many keys are due and do not run.
    pub(super) fn waiting(&self) -> usize {
        self.due.values().map(VecDeque::len).sum()
    }

    /// Whether any key is due.
    pub(super) fn is_waiting(&self) -> bool {
        !self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Name = (&'static str, u32);

    impl Key for Name {
        fn tenant(&self) -> &str {
            self.0
        }
    }

    fn started(order: &mut Order<Name>, room: Room, now: Instant) -> Vec<Name> {
        std::iter::from_fn(|| order.start(room, now)).collect()
    }

    #[test]
    fn tenants_take_turns_and_each_ones_keys_are_in_order() {
        let (mut order, now) = (Order::default(), Instant::now());
        for key in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("b", 2)] {
            order.want(key, now);
        }
        let turns = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3)];
        assert_eq!(started(&mut order, Room::All, now), turns);
    }

    #[test]
    fn a_tenant_with_a_thousand_keys_delays_another_by_one() {
        let (mut order, now) = (Order::default(), Instant::now());
        (0..1000).for_each(|number| order.want(("a", number), now));
        assert_eq!(order.start(Room::All, now), Some(("a", 0)));
        order.want(("b", 0), now);
        let next = [order.start(Room::All, now), order.start(Room::All, now)];
        assert!(next.contains(&Some(("b", 0))), "{next:?}");
    }

    #[test]
    fn the_reserve_is_for_tenants_of_which_none_runs() {
        let (mut order, now) = (Order::default(), Instant::now());
        [("a", 1), ("a", 2), ("b", 1), ("b", 2)].into_iter().for_each(|key| order.want(key, now));
        assert_eq!(order.start(Room::All, now), Some(("a", 1)));
        assert_eq!(started(&mut order, Room::Idle, now), [("b", 1)]);
        order.end(&("a", 1), None);
        assert_eq!(started(&mut order, Room::Idle, now), [("a", 2)]);
    }

    #[test]
    fn a_key_never_runs_twice_at_once_and_none_is_forgotten() {
        let (mut order, now) = (Order::default(), Instant::now());
        order.want(("a", 1), now);
        order.want(("a", 1), now);
        assert_eq!(started(&mut order, Room::All, now), [("a", 1)]);
        order.want(("a", 1), now);
        assert_eq!(order.start(Room::All, now), None, "it runs");
        order.end(&("a", 1), None);
        assert_eq!(started(&mut order, Room::All, now), [("a", 1)], "it was wanted meanwhile");
        order.end(&("a", 1), None);
        assert_eq!((started(&mut order, Room::All, now), order.next()), (vec![], None));
    }

    #[test]
    fn of_several_times_the_soonest_counts() {
        let (mut order, now) = (Order::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        order.want(("a", 1), at(60));
        order.want(("a", 1), at(1));
        order.want(("a", 1), at(30));
        assert_eq!((order.next(), order.start(Room::All, now)), (Some(at(1)), None));
        assert_eq!(started(&mut order, Room::All, at(1)), [("a", 1)]);
        assert_eq!(order.next(), None, "a pass plans anew what comes later");
        order.want(("a", 1), at(20));
        order.end(&("a", 1), Some(at(10)));
        assert_eq!(order.next(), Some(at(10)));
    }
}
