//! How many replicas each revision shall have: the Deployment controller's rules, over counts alone.
//!
//! Source: `pkg/controller/deployment/{rolling,sync}.go` and `util/deployment_util.go` of Kubernetes 1.36. Two things
//! are stricter here, since the bounds are promised at every moment and not only by `spec.replicas`: a set that still
//! has more replicas than it was asked for counts with what it has, and scaling in keeps available replicas before
//! unavailable ones. And one is other on purpose: a count that is raised together with the template goes to the new
//! revision at once.

use crate::{
    draft::{Context, Draft},
    facts::{Counts, SetFacts},
    goal::Bounds,
    plan::{Move, Next},
};

/// Gives each revision its share of the count.
pub(crate) fn share_out(context: &Context<'_>, draft: &mut Draft) {
    let mut shares: Vec<Share> =
        context.sets.iter().zip(&context.counts).map(|(set, counts)| share(context, set, *counts)).collect();
    let creates = context.creates();
    if creates {
        shares.push(Share { number: context.next_number(), ..Share::default() });
    }
    let new = context.target.existing.or(creates.then_some(context.sets.len()));
    let holds = context.goal.rollout.paused || context.is_blocked();
    draft.sizes = next(&shares, new, context.replicas, context.bounds, holds);
}

fn share(context: &Context<'_>, set: &SetFacts, counts: Counts) -> Share {
    let noted = |desired| Noted { desired, max_total: context.goal.rollout.bounds(desired).max_total };
    Share {
        asked: set.asked_for(),
        live: counts.live,
        available: counts.available,
        number: set.number,
        noted: set.desired_replicas.map(noted),
        fixed: set.deleting,
    }
}

/// One revision's share of the rollout, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Share {
    /// `spec.replicas` of its replica set.
    pub asked: u32,
    /// Replicas that exist, without terminating and ended ones.
    pub live: u32,
    /// Replicas that are available.
    pub available: u32,
    /// Its place in the history; 0 for a set that is still to be made.
    pub number: u64,
    /// The workload's replica count when it was last scaled, and the upper bound that went with it.
    pub noted: Option<Noted>,
    /// A set that is being deleted counts, and cannot be scaled.
    pub fixed: bool,
}

/// For which count a set was last scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Noted {
    /// The workload's replica count.
    pub desired: u32,
    /// The upper bound of a rollout at that count.
    pub max_total: u32,
}

impl Share {
    /// What may exist once `asked` is written: room that a set gives up is free only when it is seen to be gone.
    fn extent(&self, asked: u32) -> u32 {
        asked.max(self.asked).max(self.live)
    }

    /// Available replicas that nobody takes now: the replica-set controller takes unavailable ones first. Those beyond
    /// what was asked for may be gone already, as its status counts before it deletes.
    fn lasting(&self) -> u32 {
        self.available.min(self.asked)
    }

    /// Those of them that stay at a size.
    fn kept(&self, asked: u32) -> u32 {
        self.lasting().min(asked)
    }
}

/// The next sizes: of the new revision (its first element in `shares` is at `new`, if it exists or is to be made) and
/// the others.
///
/// `new` is the index of the wanted revision's share. `paused` keeps the revisions and only follows the count.
#[must_use]
pub fn next(shares: &[Share], new: Option<usize>, desired: u32, bounds: Bounds, paused: bool) -> Vec<Next> {
    let mut sizes =
        Sizes { shares, next: shares.iter().map(|share| Next { asked: share.asked, why: Move::Stay }).collect() };
    if desired == 0 {
        for index in 0..shares.len() {
            sizes.set(index, 0, Move::Stop);
        }
        return sizes.next;
    }
    let follows = paused || (scale_changed(shares, desired) && !grows_anew(shares, new, desired));
    if follows && sizes.follow_scale(new, desired, bounds) {
        return sizes.next;
    }
    if !paused && let Some(new) = new {
        sizes.grow_new(new, desired, bounds);
        sizes.shrink_old(new, bounds);
    }
    sizes.next
}

/// True when a set with replicas was last scaled for another count (`isScalingEvent`).
fn scale_changed(shares: &[Share], desired: u32) -> bool {
    shares
        .iter()
        .any(|share| share.asked > 0 && !share.fixed && share.noted.is_some_and(|noted| noted.desired != desired))
}

/// True when a higher count came with a new revision, which takes the growth then. A Deployment raises the old one
/// first, whose new replicas start only to be removed; a guest boots for a while. In mid-rollout a change is spread, as
/// a Deployment does: the new revision may be one that never gets available.
fn grows_anew(shares: &[Share], new: Option<usize>, desired: u32) -> bool {
    new.is_some_and(|new| shares[new].asked == 0 && !shares[new].fixed)
        && shares
            .iter()
            .filter(|share| share.asked > 0)
            .all(|share| share.noted.is_none_or(|noted| noted.desired <= desired))
}

struct Sizes<'a> {
    shares: &'a [Share],
    next: Vec<Next>,
}

impl Sizes<'_> {
    fn set(&mut self, index: usize, asked: u32, why: Move) {
        if !self.shares[index].fixed && self.next[index].asked != asked {
            self.next[index] = Next { asked, why };
        }
    }

    /// Everything that may exist once the sizes so far are written.
    fn total(&self) -> u32 {
        sum(self.shares.iter().zip(&self.next).map(|(share, next)| share.extent(next.asked)))
    }

    /// Available replicas that stay once the sizes so far are written.
    fn kept(&self) -> u32 {
        sum(self.shares.iter().zip(&self.next).map(|(share, next)| share.kept(next.asked)))
    }

    /// A change of the count while revisions stay as they are (`scale` in sync.go). False when there is nothing to
    /// spread.
    fn follow_scale(&mut self, new: Option<usize>, desired: u32, bounds: Bounds) -> bool {
        let active: Vec<usize> = (0..self.shares.len()).filter(|index| self.shares[*index].asked > 0).collect();
        let latest = || (0..self.shares.len()).max_by_key(|index| self.shares[*index].number);
        let single = match active.as_slice() {
            [] => new.or_else(latest),
            [only] => Some(*only),
            _ => None,
        };
        if let Some(single) = single {
            let room = bounds
                .max_total
                .saturating_sub(self.total().saturating_sub(self.shares[single].extent(self.next[single].asked)));
            // Room bounds growth only: what others have too much of is no reason to go below the wanted count.
            self.set(single, desired.min(room.max(self.shares[single].asked)), Move::Follow);
            return !active.is_empty() && self.next[single].why != Move::Stay;
        }
        if active.is_empty() {
            return false;
        }
        if let Some(new) = new
            && self.shares[new].asked == desired
            && self.shares[new].available == desired
        {
            for index in active.into_iter().filter(|index| *index != new) {
                self.set(index, 0, Move::Superseded);
            }
            return true;
        }
        self.spread(&active, bounds);
        true
    }

    /// Spreads a change of the count over the active sets by their size (`getReplicaSetFraction`).
    fn spread(&mut self, active: &[usize], bounds: Bounds) {
        let size = |index: &usize| self.shares[*index].asked;
        let change = i64::from(bounds.max_total) - i64::from(sum(active.iter().map(size)));
        let mut order = active.to_vec();
        // The largest first; among equals the newest grows first and the oldest shrinks first.
        order.sort_by_key(|index| {
            let number = i128::from(self.shares[*index].number);
            (std::cmp::Reverse(self.shares[*index].asked), if change > 0 { -number } else { number })
        });
        let mut left = change;
        let mut sizes: Vec<(usize, i64)> = Vec::new();
        for index in &order {
            let share = &self.shares[*index];
            let before = i64::from(share.noted.map_or(bounds.max_total, |noted| noted.max_total)).max(1);
            let asked = i64::from(share.asked);
            let target = (asked * i64::from(bounds.max_total) * 2 + before) / (before * 2);
            let wish = target - asked;
            let step = if change > 0 { wish.clamp(0, left.max(0)) } else { wish.clamp(left.min(0), 0) };
            left -= step;
            sizes.push((*index, asked + step));
        }
        if let Some((_, largest)) = sizes.first_mut() {
            *largest = (*largest + left).max(0);
        }
        for (index, size) in sizes {
            self.set(index, u32::try_from(size).unwrap_or(0), Move::Proportional);
        }
        self.keep_available(active, bounds);
        self.keep_total(active, bounds);
    }

    /// Moves replicas from sets with unavailable ones to sets that would lose available ones, while too few would stay.
    fn keep_available(&mut self, active: &[usize], bounds: Bounds) {
        let before = sum(self.shares.iter().map(Share::lasting));
        let floor = bounds.min_available.min(before);
        for to in active.iter().copied() {
            for from in active.iter().copied() {
                let missing = floor.saturating_sub(self.kept());
                let losing = self.shares[to].lasting().saturating_sub(self.next[to].asked);
                let spare = self.next[from].asked.saturating_sub(self.shares[from].lasting());
                let moved = missing.min(losing).min(spare);
                if from != to && moved > 0 {
                    self.set(to, self.next[to].asked + moved, Move::Proportional);
                    self.set(from, self.next[from].asked - moved, Move::Proportional);
                }
            }
        }
    }

    /// Takes growth back while sets that were lowered before still have their replicas.
    fn keep_total(&mut self, active: &[usize], bounds: Bounds) {
        for index in active.iter().copied() {
            let excess = self.total().saturating_sub(bounds.max_total);
            let growth = self.next[index].asked.saturating_sub(self.shares[index].extent(self.shares[index].asked));
            let back = excess.min(growth);
            if back > 0 {
                self.set(index, self.next[index].asked - back, Move::Proportional);
            }
        }
    }

    /// The new revision grows into the room below the upper bound (`NewRSNewReplicas`).
    fn grow_new(&mut self, new: usize, desired: u32, bounds: Bounds) {
        let asked = self.shares[new].asked;
        if asked > desired {
            self.set(new, desired, Move::Follow);
            return;
        }
        let room = bounds.max_total.saturating_sub(self.total());
        // Replicas beyond what is asked for are on their way out already: they are no room.
        let grown = asked.saturating_add(room).min(desired);
        let alone = self.shares.iter().enumerate().all(|(index, share)| index == new || share.asked == 0);
        self.set(new, grown, if alone { Move::Follow } else { Move::Surge });
    }

    /// Old revisions shrink: unhealthy replicas first, then as far as enough stay available
    /// (`reconcileOldReplicaSets`).
    fn shrink_old(&mut self, new: usize, bounds: Bounds) {
        let mut old: Vec<usize> =
            (0..self.shares.len()).filter(|index| *index != new && self.shares[*index].asked > 0).collect();
        old.sort_by_key(|index| self.shares[*index].number);
        let asked_total = sum(self.next.iter().map(|next| next.asked));
        let new_unavailable = self.next[new].asked.saturating_sub(self.shares[new].lasting());
        let mut cleanup = asked_total.saturating_sub(bounds.min_available).saturating_sub(new_unavailable);
        for index in old.iter().copied() {
            let share = self.shares[index];
            let unhealthy = share.asked.saturating_sub(share.lasting()).min(cleanup);
            if unhealthy > 0 && !share.fixed {
                cleanup -= unhealthy;
                self.set(index, share.asked - unhealthy, Move::DropUnhealthy { unhealthy });
            }
        }
        let mut spare = self.kept().saturating_sub(bounds.min_available);
        for index in old {
            let (share, asked) = (self.shares[index], self.next[index].asked);
            let by = asked.min(spare);
            if by > 0 && !share.fixed {
                spare -= by;
                self.set(index, asked - by, Move::MakeWay);
            }
        }
    }
}

fn sum(counts: impl Iterator<Item = u32>) -> u32 {
    counts.fold(0, u32::saturating_add)
}
