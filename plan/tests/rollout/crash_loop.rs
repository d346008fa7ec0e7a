//! The backoff of crashing guests: its rules case by case, and played through with guests that live for a while.

use catamaran_plan::{
    facts::{Crash, CrashLoop, Instance, InstanceSet, Pause, Stage},
    steps::crash_loop::judge,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::simulator::time;

fn instance(name: &str, created: i64) -> Instance {
    Instance {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        created: time(created),
        stage: Stage::Started,
        pause: Pause::Running,
        usage: None,
        launchers: Vec::new(),
    }
}

fn with(crash_loop: Option<CrashLoop>, there: usize, crashes: Vec<Crash>) -> InstanceSet {
    let instances = (0..there).map(|index| instance(&format!("vmi-{index}"), 0)).collect();
    InstanceSet { crash_loop, instances, crashes, ..InstanceSet::default() }
}

fn crash(created: i64, ended: i64, newest: i64) -> Crash {
    Crash { created: time(created), ended: time(ended), newest: time(newest) }
}

#[test]
fn the_pause_doubles_with_each_round_up_to_300_s() {
    let mut set = with(None, 0, Vec::new());
    let (mut now, mut pauses) = (30, Vec::new());
    for _ in 0..8 {
        set.crashes = vec![crash(now - 30, now, now - 30)];
        let verdict = judge(&set, 2, time(now));
        let state = verdict.state.expect("it is noted");
        assert_eq!((verdict.pause, verdict.backing_off), (true, state.rounds > 1), "at {now}");
        assert_eq!(verdict.look_again, Some(state.until));
        pauses.push((state.until.as_second() - state.last.as_second(), state.rounds));
        set.crash_loop = verdict.state;
        // Just before the end it still holds; then it lets replacements through, which crash half a minute later.
        let end = now + pauses[pauses.len() - 1].0;
        assert!(judge(&set, 2, time(end - 1)).pause);
        assert!(!judge(&set, 2, time(end)).pause, "a missing guest is replaced at {end}");
        now = end + 30;
    }
    assert_eq!(pauses, [(10, 1), (20, 2), (40, 3), (80, 4), (160, 5), (300, 6), (300, 7), (300, 8)]);
}

#[test]
fn a_set_is_on_guard_until_its_guests_have_run_for_ten_minutes() {
    let note = |rounds, longest| {
        let (last, until) = (time(0), time(20));
        CrashLoop { rounds, newest: time(-30), last, until, longest }
    };
    // (round, the longest life, instances there of 2, now, pause, backing off, noted)
    for (rounds, longest, there, now, pause, backing_off, noted) in [
        (1, 30, 1, 19, true, false, true),
        (1, 30, 2, 19, true, false, true),
        (1, 30, 1, 20, false, false, true),
        (1, 30, 2, 20, true, false, true),
        (2, 30, 1, 19, true, true, true),
        (2, 30, 1, 20, false, true, true),
        // It is not well because its guests are there: they have to stay, for twice as long as those that ended.
        (2, 30, 2, 79, true, true, true),
        (2, 30, 2, 80, true, false, true),
        (2, 100, 2, 219, true, true, true),
        (2, 100, 2, 220, true, false, true),
        (2, 500, 2, 619, true, true, true),
        // A replacement for what was lost otherwise.
        (2, 30, 1, 619, false, false, true),
        (2, 30, 2, 619, true, false, true),
        (2, 30, 2, 620, false, false, false),
        (2, 500, 2, 620, false, false, false),
    ] {
        let verdict = judge(&with(Some(note(rounds, longest)), there, Vec::new()), 2, time(now));
        let found = (verdict.pause, verdict.backing_off, verdict.state.is_some());
        assert_eq!(found, (pause, backing_off, noted), "round {rounds}, {longest} s, {there} of 2 at {now} s");
    }
}

#[test]
fn which_crashes_begin_a_round() {
    let rounds = |note, crashes: Vec<Crash>, now| {
        judge(&with(note, 0, crashes), 1, time(now)).state.map(|state: CrashLoop| state.rounds)
    };
    let note = Some(CrashLoop { rounds: 3, newest: time(70), last: time(100), until: time(140), longest: 30 });

    let two_at_once = vec![crash(0, 30, 1), crash(1, 30, 30)];
    assert_eq!(rounds(None, two_at_once, 31), Some(1), "two that die together are one round");
    let two_of_a_round = vec![crash(0, 30, 1), crash(1, 300, 290)];
    assert_eq!(rounds(None, two_of_a_round, 301), Some(1), "and those that were there together are, whenever they die");
    let replacement = vec![crash(0, 30, 1), crash(30, 60, 30)];
    assert_eq!(rounds(None, replacement, 61), Some(2), "a replacement of the same second is the next round");
    assert_eq!(rounds(note, vec![crash(70, 100, 70)], 101), Some(3), "a crash that is noted does not count again");
    assert_eq!(rounds(note, vec![crash(71, 101, 71)], 101), Some(4));
    assert_eq!(rounds(None, vec![crash(0, 600, 0)], 601), None, "a guest of 10 minutes did not crash young");
    assert_eq!(rounds(None, vec![crash(0, 599, 0)], 601), Some(1), "one of just less did");
    assert_eq!(rounds(note, vec![crash(700, 740, 700)], 741), Some(1), "after 10 quiet minutes the count starts again");
    assert_eq!(rounds(note, vec![crash(700, 739, 700)], 740), Some(4), "not before");
    assert_eq!(rounds(note, Vec::new(), 739), Some(3), "until then the note stays");
    assert_eq!(rounds(note, Vec::new(), 740), None, "and then it goes");
    assert_eq!(judge(&with(note, 0, vec![crash(80, 110, 80)]), 0, time(111)).state, None, "nothing is wanted");
}

#[test]
fn what_may_be_a_crash_is_not_replaced_before_that_is_known() {
    let note = Some(CrashLoop { rounds: 2, newest: time(0), last: time(0), until: time(20), longest: 30 });
    let set = InstanceSet { unexplained_until: Some(time(105)), ..with(note, 1, Vec::new()) };
    assert!(judge(&set, 2, time(104)).pause);
    assert_eq!(judge(&set, 2, time(104)).look_again, Some(time(105)));
    assert!(!judge(&set, 2, time(105)).pause, "a loss is made up for");
    assert!(!judge(&with(note, 1, Vec::new()), 2, time(104)).pause);
}

/// The step of the simulation, in milliseconds.
const STEP: i64 = 200;

/// One guest of the simulation; times in milliseconds.
struct Guest {
    /// In whole seconds, as the API server has it.
    created: i64,
    dies: i64,
}

/// A replica set whose guests die, virt-controller, and an operator that has only what `judge` says. Times in
/// milliseconds.
struct Loop {
    now: i64,
    wanted: usize,
    guests: Vec<Guest>,
    note: Option<CrashLoop>,
    paused: bool,
    /// What virt-controller has seen of the pause.
    pause_seen: bool,
    crashes: Vec<Crash>,
    /// When the pause last ended.
    unpaused: i64,
    /// When guests died in the moment in which others were replaced: virt-controller replaces those as well, and
    /// nobody can keep it from that.
    raced: Vec<i64>,
    /// When each guest was made.
    made: Vec<i64>,
    /// When the workload was said to be in a crash loop, and when not.
    told: Vec<(i64, bool)>,
}

fn at(millis: i64) -> Timestamp {
    time(0) + SignedDuration::from_millis(millis)
}

impl Loop {
    fn new(wanted: usize) -> Self {
        let (note, crashes, made, told) = (None, Vec::new(), Vec::new(), vec![(0, false)]);
        let (guests, unpaused, raced) = (Vec::new(), i64::MIN, Vec::new());
        Self { now: 0, wanted, guests, note, paused: false, pause_seen: false, crashes, unpaused, raced, made, told }
    }

    /// Lets `seconds` pass. A guest lives for what `life` says, from its creation, in milliseconds.
    fn run(&mut self, seconds: i64, mut life: impl FnMut() -> i64) {
        for _ in 0..seconds * 1000 / STEP {
            self.now += STEP;
            self.ends();
            // virt-controller replaces at once, unless it has seen a pause. The operator is two steps behind.
            while !self.pause_seen && self.guests.len() < self.wanted {
                self.guests.push(Guest { created: self.now / 1000, dies: self.now + life() });
                self.made.push(self.now);
            }
            self.pause_seen = self.paused;
            self.operator();
        }
    }

    fn ends(&mut self) {
        let newest = self.guests.iter().map(|guest| guest.created).max().unwrap_or(0);
        let now = self.now;
        // Both the end of the pause and its return are seen a step late.
        let races = now.saturating_sub(self.unpaused) <= 3 * STEP;
        let (crashes, raced) = (&mut self.crashes, &mut self.raced);
        self.guests.retain(|guest| {
            let ended = guest.dies <= now;
            if ended {
                raced.extend(races.then_some(now));
                crashes.push(Crash { created: time(guest.created), ended: at(now), newest: time(newest) });
            }
            !ended
        });
        let len = self.crashes.len();
        self.crashes.drain(..len.saturating_sub(32));
    }

    fn operator(&mut self) {
        let set = with(self.note, self.guests.len(), self.crashes.clone());
        let verdict = judge(&set, u32::try_from(self.wanted).expect("few"), at(self.now));
        self.note = verdict.state;
        if self.paused && !verdict.pause {
            self.unpaused = self.now;
        }
        self.paused = verdict.pause;
        if self.told.last().is_none_or(|(_, told)| *told != verdict.backing_off) {
            self.told.push((self.now, verdict.backing_off));
        }
    }

    /// How many replacements were made in some seconds.
    fn made_in(&self, seconds: std::ops::Range<i64>) -> usize {
        self.made.iter().skip(self.wanted).filter(|at| seconds.contains(&(**at / 1000))).count()
    }
}

#[test]
fn two_guests_that_die_after_30_s_get_six_replacements_in_four_minutes_and_then_fewer() {
    for boot in [0, 1, 3, 7, 20] {
        let mut set = Loop::new(2);
        set.run(3600, || (boot + 30) * 1000);
        let made = [set.made_in(0..240), set.made_in(240..480), set.made_in(480..3600)];
        println!("a boot of {boot} s: {made:?}, {:?}", set.made);
        assert!(made[0] <= 6 && made[1] <= 4, "{made:?}");
        assert!((12..=24).contains(&made[2]), "5 minutes and a life between two: {made:?}");
        // From the second round on, it is in a crash loop and nothing else.
        let (_, told) = set.told[set.told.len() - 1];
        assert!(told && set.told.len() <= 2, "{:?}", set.told);
    }
}

proptest! {
    // Each case is more than an hour in steps of a fifth of a second.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever the guests of one revision live: what is replaced goes down to a trickle, the status says so all the
    /// time, and once they stay up, all is as it was.
    #[test]
    fn guests_that_die_young_are_held_back_and_get_well(
        wanted in 1..4usize,
        lives in prop::collection::vec(prop::sample::select(vec![1i64, 10, 30, 60, 300]), 1..12),
        jitter in prop::collection::vec(0..3000i64, 1..7),
    ) {
        let mut set = Loop::new(wanted);
        let mut next = 0;
        set.run(3600, || {
            next += 1;
            lives[next % lives.len()] * 1000 + jitter[next % jitter.len()]
        });
        // No more than a kubelet would restart containers that live for a second, and the one that is replaced at once.
        let rounds = |seconds: i64| [0, 20, 60, 140, 300, 600].iter().filter(|pause| **pause <= seconds).count()
            + usize::try_from((seconds - 600).max(0) / 300).expect("few");
        for seconds in [60, 240, 900, 3600] {
            let (made, raced) = (set.made_in(0..seconds), set.raced.iter().filter(|at| **at < seconds * 1000).count());
            let most = wanted * rounds(seconds) + raced;
            prop_assert!(made <= most, "{} in {} s: {:?}, raced {:?}", made, seconds, set.made, set.raced);
        }
        // Told for good from the second round on.
        let second = set.told.iter().position(|(at, told)| *told && *at > 0);
        prop_assert!(set.told.last().is_some_and(|(_, told)| *told), "{:?}", set.told);
        prop_assert!(second.is_some(), "{:?}", set.told);
        // Guests of one kind never look well; where lives differ a hundredfold, one may for a moment.
        let most = if lives.iter().all(|life| *life == lives[0]) { 2 } else { 8 };
        prop_assert!(set.told.len() <= most, "{:?}", set.told);
        // The guests stay up from now on.
        set.run(1500, || i64::MAX / 2);
        prop_assert_eq!((set.note, set.paused, set.guests.len()), (None, false, wanted));
        prop_assert_eq!(set.told.last().map(|(_, told)| *told), Some(false));
    }
}
