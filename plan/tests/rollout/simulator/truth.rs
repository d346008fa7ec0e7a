//! What is true, whatever the operator has seen of it: the bounds of the rollout, checked at every write.
//!
//! Controllers create up to `spec.replicas` and delete down to it, so what a write *allows* is what counts: how many
//! replicas may come to exist, and how many available ones are sure to stay. Between writes neither gets worse but by
//! losses that nobody asked for, so checking writes is enough.

use catamaran_crds::Hull;
use catamaran_plan::Goal;

use super::{Flight, Set, World, asked_for, controllers::count};

impl Set {
    /// How many replicas may come to exist without a further write.
    pub fn may_exist(&self) -> u32 {
        let pause_is_in_force = self.object.paused && self.object.status.pause_seen;
        let live = self.live();
        if self.object.deleting || pause_is_in_force { live } else { live.max(self.object.asked) }
    }

    /// The same for the rollout: what a crash loop holds back has its place.
    fn has_a_place(&self) -> u32 {
        let held_back = self.object.crash_loop.is_some() && !self.object.deleting;
        if held_back { self.live().max(self.object.asked) } else { self.may_exist() }
    }

    pub fn live(&self) -> u32 {
        count(self.replicas.iter())
    }

    /// How many available replicas are sure to stay without a further write.
    pub fn sure_to_stay(&self, min_ready: u32, now: i64) -> u32 {
        let (available, live) = (self.available(min_ready, now), self.live());
        match self.hull {
            Hull::Container => available.min(self.object.asked),
            // Random victims may all be available ones.
            Hull::VirtualMachine if !self.object.paused => {
                available.saturating_sub(live.saturating_sub(self.object.asked))
            }
            Hull::VirtualMachine => available,
        }
    }
}

impl World {
    /// Checks what a write changed. Losses and gains that were not seen yet when it was planned are no fault of the
    /// plan.
    pub(super) fn check_write(&mut self, before: &Self, desired: &Goal, flight: &Flight) -> Result<(), String> {
        let bounds = desired.rollout.bounds(asked_for(desired));
        let min_ready = desired.rollout.min_ready_seconds;
        let unseen = self.losses().saturating_sub(flight.losses);
        let stays =
            |world: &Self| world.sets.iter().map(|set| set.sure_to_stay(min_ready, self.now)).sum::<u32>() + unseen;
        let is = self.sets.iter().map(Set::may_exist).sum::<u32>();
        let was = before.sets.iter().map(Set::has_a_place).sum::<u32>();
        if is > bounds.max_total.max(was) {
            return Err(format!("{is} replicas may exist, were {was}, bound {}\n{self}", bounds.max_total));
        }
        let places = self.sets.iter().map(Set::has_a_place).sum::<u32>();
        self.ceiling = bounds.max_total.max(self.ceiling.min(places));
        let (is, was) = (stays(self), stays(before));
        if is < bounds.min_available.min(was).min(flight.available) {
            return Err(format!("{is} available replicas stay, were {was}, bound {}\n{self}", bounds.min_available));
        }
        Ok(())
    }

    /// Checks what is there at any moment.
    pub(super) fn check_total(&self) -> Result<(), String> {
        let live: u32 = self.sets.iter().map(Set::live).sum();
        if live > self.ceiling {
            return Err(format!("{live} replicas exist, at most {} may\n{self}", self.ceiling));
        }
        Ok(())
    }
}
