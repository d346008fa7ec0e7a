//! Accounting: no order of readings loses anything or counts it twice.

use std::{sync::Arc, time::Duration};

use catamaran_crds::Hull;
use catamaran_metering::{Account, Amounts, Hour, Keep, Ledger, Meter, Pod, Reading, Request};
use jiff::Timestamp;
use proptest::prelude::*;

const OLD: Duration = Duration::from_secs(86_400);
const GIB: u64 = 1 << 30;

/// A second of the world's clock; the tests begin at 10:00.
fn at(seconds: i64) -> Timestamp {
    "2026-03-01T10:00:00Z".parse::<Timestamp>().expect("a time") + jiff::SignedDuration::from_secs(seconds)
}

fn reading(boot: u64, seconds: u64, cpu: u64) -> Reading {
    Reading { clock: boot, taken: Duration::from_secs(seconds), cpu_usage_usec: Some(cpu), ..Reading::default() }
}

fn cpu_of(mut meter: Meter, readings: &[Reading]) -> u64 {
    readings.iter().map(|reading| meter.read(*reading, OLD).amounts.cpu_usage_usec).sum()
}

#[test]
fn differences_of_a_counter() {
    let absent = |seconds| Reading { cpu_usage_usec: None, ..reading(1, seconds, 0) };
    for (what, readings, from_zero, from_now) in [
        ("one reading", vec![reading(1, 1, 70)], 70, 0),
        ("growth", vec![reading(1, 1, 70), reading(1, 2, 100)], 100, 30),
        ("the same again", vec![reading(1, 1, 70), reading(1, 2, 100), reading(1, 2, 100)], 100, 30),
        ("an older one late", vec![reading(1, 1, 70), reading(1, 9, 100), reading(1, 5, 80)], 100, 30),
        ("a day without an agent", vec![reading(1, 1, 70), reading(1, 86_400, 900)], 900, 830),
        ("the cgroup made anew", vec![reading(1, 1, 70), reading(1, 2, 5), reading(1, 3, 6)], 76, 6),
        ("another boot", vec![reading(1, 500, 70), reading(2, 3, 90)], 160, 90),
        ("absent for a moment", vec![reading(1, 1, 70), absent(2), reading(1, 3, 90)], 90, 20),
        ("absent at first", vec![absent(1), reading(1, 3, 90)], 90, 0),
        ("absent after a boot", vec![reading(1, 9, 70), Reading { clock: 2, ..absent(1) }, reading(2, 2, 90)], 160, 90),
        ("absurd", vec![reading(1, 1, 70), reading(1, 2, u64::MAX), reading(1, 3, 50)], 120, 50),
    ] {
        assert_eq!(cpu_of(Meter::from_zero(), &readings), from_zero, "{what}, from zero");
        assert_eq!(cpu_of(Meter::from_now(), &readings), from_now, "{what}, from now");
    }
}

#[test]
fn memory_is_the_mean_over_the_time_between_readings() {
    let read = |seconds, bytes| Reading { memory_bytes: Some(bytes), ..reading(1, seconds, 0) };
    let mut meter = Meter::from_zero();
    let mut sum = Amounts::NONE;
    // Its container restarts at 4 s, an agent is away until 64 s, then for longer than is bridged.
    for (seconds, bytes) in [(1, GIB), (2, GIB), (4, 0), (5, GIB), (64, GIB), (2000, GIB), (2001, GIB)] {
        sum.add(&meter.read(read(seconds, bytes), OLD).amounts);
    }
    // 1 s; 2 s from all to nothing are 1; 1 s from nothing to all is a half; 59 s; 1 s.
    let gib_seconds = 1 + 59 + 1 + 1;
    let half = u128::from(GIB) * 500_000;
    assert_eq!(sum.memory_usage_byte_usec, gib_seconds * u128::from(GIB) * 1_000_000 + half);
    assert_eq!(sum.metered_usec, 64_000_000, "what nobody read is not measured");
}

fn account(class: Option<&str>) -> Arc<Account> {
    Arc::new(Account {
        namespace: "shop".into(),
        workload: "web".into(),
        class: class.map(Into::into),
        hull: Hull::Container,
    })
}

fn pod(class: Option<&str>, started: i64, millicores: u64) -> Pod {
    let request = Request { cpu_millicores: millicores, memory_bytes: GIB };
    Pod { account: account(class), started: at(started), request }
}

fn total(ledger: &Ledger, class: Option<&str>) -> Amounts {
    let account = account(class);
    ledger.totals().find(|(found, _)| **found == *account).map_or(Amounts::NONE, |(_, amounts)| *amounts)
}

#[test]
fn a_restart_of_containers_and_of_the_agent_loses_nothing() {
    let mut ledger = Ledger::new(at(0), Keep::default());
    ledger.meet("a", pod(None, 10, 500), at(11));
    // The pod's own cgroup goes on over both.
    for (seconds, cpu) in [(12, 1_000_000), (13, 2_000_000), (40, 20_000_000), (41, 20_000_000)] {
        ledger.read("a", reading(1, u64::try_from(seconds).expect("positive"), cpu), at(seconds));
    }
    ledger.meet("a", pod(None, 10, 500), at(50));
    ledger.forget(at(51));
    // It only seemed to be gone: its label was taken off, and put on again.
    ledger.meet("a", pod(None, 10, 500), at(51));
    ledger.read("a", reading(1, 51, 20_000_000), at(51));
    // Its successor, and a pod that was there before the ledger.
    ledger.meet("b", pod(None, 50, 500), at(52));
    ledger.meet("old", pod(None, -500, 500), at(52));
    ledger.read("b", reading(1, 53, 7_000_000), at(53));
    ledger.read("old", reading(1, 53, 900_000_000), at(53));
    ledger.read("old", reading(1, 54, 901_000_000), at(54));
    ledger.read("nobody", reading(1, 54, 901_000_000), at(54));
    let total = total(&ledger, None);
    assert_eq!(total.cpu_usage_usec, 20_000_000 + 7_000_000 + 1_000_000);
    // 41 s of the first, 2 s of the second, and of the old one what it had since the ledger began.
    assert_eq!(total.replica_usec, (41 + 2 + 52) * 1_000_000);
    assert_eq!(total.cpu_requested_usec, (41 + 2 + 52) * 500_000);
    assert_eq!(total.memory_requested_byte_usec, (41 + 2 + 52) * u128::from(GIB) * 1_000_000);
}

#[test]
fn a_request_counts_from_when_it_holds() {
    let mut ledger = Ledger::new(at(0), Keep::default());
    ledger.meet("a", pod(None, 0, 100), at(0));
    ledger.meet("a", pod(None, 0, 300), at(10));
    ledger.meet("a", pod(Some("small"), 0, 300), at(30));
    // The clock goes back, and on again.
    ledger.meet("a", pod(Some("small"), 0, 300), at(20));
    ledger.meet("a", pod(Some("small"), 0, 300), at(40));
    assert_eq!(total(&ledger, None).cpu_requested_usec, 10 * 100_000 + 20 * 300_000);
    assert_eq!(total(&ledger, Some("small")).cpu_requested_usec, 10 * 300_000);
}

#[test]
fn hours_get_their_part() {
    let mut ledger = Ledger::new(at(0), Keep::default());
    ledger.meet("a", pod(None, 1800, 1000), at(1800));
    ledger.read("a", reading(1, 0, 0), at(1800));
    // Two hours without an agent: 90 minutes are in the first hour and the second.
    ledger.read("a", reading(1, 7200, 7_200_000_001), at(9000));
    let hours = ledger.hours(at(0), at(10_800));
    let cpu: Vec<_> = hours.iter().map(|(hour, _, amounts)| (hour.start(), amounts.cpu_usage_usec)).collect();
    assert_eq!(cpu, [(at(0), 1_800_000_000), (at(3600), 3_600_000_000), (at(7200), 1_800_000_001)]);
    assert_eq!(ledger.hours(at(3600), at(7200)).len(), 1);
    assert!(ledger.hours(at(7200), at(3600)).is_empty());
    assert_eq!(Hour::containing(at(-1)).end(), at(0));
}

#[test]
fn a_ledger_is_bounded() {
    let keep = Keep { hours: 3, buckets: 5, totals: Duration::from_secs(60) };
    let mut ledger = Ledger::new(at(0), keep);
    for hour in 0..10 {
        let now = at(hour * 3600 + 10);
        ledger.meet("a", pod(None, 0, 100), now);
        ledger.meet("b", pod(Some("x"), 0, 100), now);
        ledger.forget(now);
        assert!(ledger.size().1 <= 5 && ledger.size().0 == 2, "{:?}", ledger.size());
    }
    assert_eq!(ledger.since(), at(8 * 3600), "what was dropped is told");
    ledger.forget(at(9 * 3600 + 20));
    assert_eq!((ledger.size().0, ledger.totals().count()), (2, 2), "what is gone is not forgotten at once");
    ledger.meet("a", pod(None, 0, 100), at(10 * 3600));
    ledger.forget(at(10 * 3600));
    assert_eq!((ledger.size().0, ledger.totals().count()), (1, 1));
}

/// What a kernel would say of a pod over its life: CPU that grows, containers and agents that come and go make no
/// difference to it.
fn truth() -> impl Strategy<Value = Vec<Reading>> {
    prop::collection::vec((1_u64..120, 0_u64..1_000_000, 0_u64..(4 * GIB)), 1..40).prop_map(|steps| {
        let (mut taken, mut cpu) = (Duration::ZERO, 0);
        steps
            .into_iter()
            .map(|(seconds, used, bytes)| {
                taken += Duration::from_secs(seconds);
                cpu += used * seconds;
                Reading {
                    clock: 1,
                    taken,
                    cpu_usage_usec: Some(cpu),
                    memory_bytes: Some(bytes),
                    io_read_bytes: Some(cpu / 3),
                    io_write_bytes: None,
                }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn no_order_loses_or_counts_twice(
        truth in truth(),
        arrivals in prop::collection::vec(any::<prop::sample::Index>(), 1..80),
        found in any::<bool>(),
    ) {
        // Any readings, any of them missing, late or repeated.
        let arrived: Vec<Reading> = arrivals.iter().map(|index| *index.get(&truth)).collect();
        let mut meter = if found { Meter::from_now() } else { Meter::from_zero() };
        let mut sum = Amounts::NONE;
        for reading in &arrived {
            sum.add(&meter.read(*reading, OLD).amounts);
        }
        // The model: the newest reading says all, less what the first one said where counting begins with it.
        let newest = arrived.iter().max_by_key(|reading| reading.taken).expect("one");
        let first = arrived.first().filter(|_| found);
        let less = |pick: fn(&Reading) -> Option<u64>| {
            pick(newest).unwrap_or_default() - first.and_then(pick).unwrap_or_default()
        };
        prop_assert_eq!(sum.cpu_usage_usec, less(|reading| reading.cpu_usage_usec));
        prop_assert_eq!(sum.io_read_bytes, less(|reading| reading.io_read_bytes));
        // Memory: the trapezoids under the readings that were news.
        let mut news: Vec<&Reading> = Vec::new();
        for reading in &arrived {
            if news.last().is_none_or(|last| reading.taken > last.taken) {
                news.push(reading);
            }
        }
        let area: u128 = news.windows(2).filter_map(|pair| {
            let [from, to] = pair else { return None };
            let elapsed = to.taken - from.taken;
            let both = u128::from(from.memory_bytes? + to.memory_bytes?);
            (elapsed <= Duration::from_secs(900)).then_some(both * elapsed.as_micros() / 2)
        }).sum();
        prop_assert_eq!(sum.memory_usage_byte_usec, area);
    }

    #[test]
    fn hours_and_totals_are_the_same_sum(
        steps in prop::collection::vec((0_usize..4, 1_i64..4000, 0_u64..100_000_000), 1..60),
    ) {
        let mut ledger = Ledger::new(at(0), Keep::default());
        let (mut now, mut cpu) = (0, [0_u64; 4]);
        let uids = ["a", "b", "c", "d"];
        for (index, seconds, used) in steps {
            now += seconds;
            cpu[index] += used;
            let class = (index > 1).then_some("small");
            ledger.meet(uids[index], pod(class, 0, 250), at(now));
            ledger.read(uids[index], reading(1, u64::try_from(now).expect("positive"), cpu[index]), at(now));
        }
        let mut hours = Amounts::NONE;
        for (_, _, amounts) in ledger.hours(at(-3600), at(now + 1)) {
            hours.add(&amounts);
        }
        let mut totals = Amounts::NONE;
        for (_, amounts) in ledger.totals() {
            totals.add(amounts);
        }
        prop_assert_eq!(hours, totals);
        prop_assert_eq!(totals.cpu_usage_usec, cpu.iter().sum::<u64>());
    }

    #[test]
    fn any_reading_is_survived(
        readings in prop::collection::vec((any::<(u64, u64)>(), any::<[Option<u64>; 2]>(), any::<i64>()), 0..30),
    ) {
        let mut ledger = Ledger::new(at(0), Keep::default());
        for ((clock, taken), [cpu, memory], now) in readings {
            let now = Timestamp::from_second(now % 100_000_000_000).unwrap_or(Timestamp::MAX);
            let reading = Reading {
                clock: clock % 2, taken: Duration::from_micros(taken), cpu_usage_usec: cpu,
                memory_bytes: memory, io_read_bytes: cpu, io_write_bytes: memory,
            };
            ledger.meet("a", Pod { started: now, ..pod(None, 0, u64::MAX) }, now);
            ledger.read("a", reading, now);
            ledger.forget(now);
        }
    }
}

/// Steps of a story: pods of two classes are met at times, in batches or one by one.
#[test]
fn pods_that_are_met_together_are_charged_as_one_by_one() {
    let pods = prop::collection::vec((0usize..4, 0i64..100), 0..6);
    let steps = prop::collection::vec((0i64..4000, any::<bool>(), pods), 1..20);
    proptest!(|(steps in steps)| {
        let (mut together, mut apart) = (Ledger::new(at(0), Keep::default()), Ledger::new(at(0), Keep::default()));
        let uids = ["a", "b", "c", "d"];
        let mut now = 0;
        for (later, small, pods) in steps {
            now += later;
            let class = small.then_some("small");
            let all: Vec<_> = pods
                .iter()
                .map(|(uid, cores)| (uids[*uid], pod(class, 5, u64::try_from(*cores).expect("positive"))))
                .collect();
            together.meet_all(&account(class), all.iter().map(|(uid, pod)| (*uid, pod.started, pod.request)), at(now));
            together.open(&account(class), at(now));
            apart.open(&account(class), at(now));
            for (uid, pod) in all {
                apart.meet(uid, pod, at(now));
            }
        }
        let all = |ledger: &Ledger| -> Vec<(Account, Amounts)> {
            ledger.totals().map(|(account, amounts)| (account.clone(), *amounts)).collect()
        };
        prop_assert_eq!(all(&together), all(&apart));
        // Parts of hours are rounded once for the sum, or once for each pod.
        let hours = |ledger: &Ledger| -> Vec<_> {
            let hours = ledger.hours(at(0), at(now + 1)).into_iter();
            hours.map(|(hour, account, amounts)| (hour, account, amounts.replica_usec)).collect()
        };
        let (one, other) = (hours(&together), hours(&apart));
        prop_assert_eq!(one.len(), other.len());
        for (one, other) in one.iter().zip(&other) {
            prop_assert_eq!((one.0, &one.1), (other.0, &other.1));
            prop_assert!(one.2.abs_diff(other.2) < 10);
        }
    });
}
