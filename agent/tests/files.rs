//! The kernel's texts, as they are and as they should not be.

use catamaran_agent::{
    files::{Bandwidth, CpuMax, CpuStat, IoStat, Stall, cpu_max, cpu_stat, io_stat, single, stall, value},
    knobs::{IoField, Limit, Slot},
    working_set::WorkingSet,
};
use proptest::prelude::*;
use std::time::Duration;

/// From kernel 6.1, with a CPU limit.
const CPU_STAT: &str = "usage_usec 5271964\nuser_usec 4102342\nsystem_usec 1169622\ncore_sched.force_idle_usec 0\n\
    nr_periods 120\nnr_throttled 7\nthrottled_usec 350112\nnr_bursts 3\nburst_usec 90000\n";
const PRESSURE: &str =
    "some avg10=1.42 avg60=0.31 avg300=0.06 total=1834120\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=99\n";
const IO_STAT: &str = "8:0 rbytes=1048576 wbytes=4096 rios=256 wios=1 dbytes=0 dios=0\n8:16 \n\
    253:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n";
const MEMORY_STAT: &str = "anon 1000\nfile 9000\nkernel 300\ninactive_anon 5\ninactive_file 4096\nactive_file 4904\n";
const IO_MAX: &str = "8:0 rbps=max wbps=1048576 riops=max wiops=120\n8:16 rbps=5 wbps=max riops=max wiops=max\n";

#[test]
fn the_kernels_texts_are_read() {
    let bandwidth = Bandwidth { nr_periods: 120, nr_throttled: 7, throttled_usec: 350_112 };
    assert_eq!(cpu_stat(CPU_STAT), Some(CpuStat { usage_usec: 5_271_964, bandwidth: Some(bandwidth) }));
    // Without the cpu controller.
    let alone = CpuStat { usage_usec: 12, bandwidth: None };
    assert_eq!(cpu_stat("usage_usec 12\nuser_usec 6\nsystem_usec 6\n"), Some(alone));
    assert_eq!(cpu_stat("user_usec 6\n"), None);
    assert_eq!(single("4096\n"), Some(4096));
    assert_eq!((single("max\n"), single(""), single("-1\n"), single("+1")), (None, None, None, None));
    assert_eq!(value(MEMORY_STAT, "inactive_file"), Some(4096));
    assert_eq!(value("low 0\nhigh 12\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n", "oom_kill"), Some(2));
    assert_eq!(value(MEMORY_STAT, "inactive"), None);
    assert_eq!(stall(PRESSURE), Some(Stall { some_usec: 1_834_120, full_usec: 99 }));
    // cpu.pressure had no `full` line before kernel 5.13.
    assert_eq!(stall("some avg10=0.00 total=5\n"), Some(Stall { some_usec: 5, full_usec: 0 }));
    assert_eq!(stall(""), None);
    let sum = IoStat { read_bytes: 1_048_586, write_bytes: 4116, read_operations: 259, write_operations: 5 };
    assert_eq!((io_stat(IO_STAT), io_stat("")), (sum, IoStat::default()));
    assert_eq!(cpu_max("20000 100000\n"), Some(CpuMax { quota_usec: Some(20_000), period_usec: 100_000 }));
    assert_eq!(cpu_max("max 100000\n"), Some(CpuMax { quota_usec: None, period_usec: 100_000 }));
    assert_eq!((cpu_max("max"), cpu_max("x 1"), cpu_max("")), (None, None, None));
}

#[test]
fn a_slot_is_read_where_it_is() {
    let io = |device: &str, field| Slot::Io(device.parse().expect("a device"), field);
    assert_eq!(io("8:0", IoField::WriteBytes).read(IO_MAX), Some(Limit::At(1_048_576)));
    assert_eq!(io("8:0", IoField::ReadBytes).read(IO_MAX), Some(Limit::Max));
    assert_eq!(io("8:16", IoField::ReadBytes).read(IO_MAX), Some(Limit::At(5)));
    assert_eq!(io("8:1", IoField::ReadBytes).read(IO_MAX), Some(Limit::Max), "8:1 is not the beginning of 8:16");
    assert_eq!(io("8:0", IoField::ReadBytes).read("8:0 rbps=lots\n"), None);
    assert_eq!(Slot::PidsMax.read("max\n"), Some(Limit::Max));
    assert_eq!(io("8:0", IoField::ReadOperations).line(Limit::Max), "8:0 riops=max");
    assert_eq!(Slot::MemoryHigh.kept(Limit::At(4097), 4096), Limit::At(4096));
    assert_eq!(Slot::PidsMax.kept(Limit::At(4097), 4096), Limit::At(4097));
}

#[test]
fn memory_stat_is_read_seldom() {
    let at = Duration::from_secs;
    let mut set = WorkingSet::default();
    assert!(set.is_due(1000, at(100)));
    set.read(1000, 300, at(100));
    assert_eq!(set.bytes(1000), 700);
    assert!((101..160).all(|second| !set.is_due(1000, at(second))), "nothing moved");
    assert!(set.is_due(1000, at(160)), "it is old");
    assert!(!set.is_due(1001, at(109)) && set.is_due(1001, at(110)), "memory moved a little");
    assert!(!set.is_due(2000, at(101)) && set.is_due(2000, at(102)), "memory grew");
    assert!(!set.is_due(1062, at(105)) && set.is_due(1063, at(105)), "by more than a sixteenth");
    assert_eq!(set.bytes(100), 0, "what was seen then may be more than there is now");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "(usage_usec|nr_periods|some|full|total=|8:0|rbytes=|rbps=|max|[0-9]{0,22}|[ \n=:-]|.){0,40}") {
        let _ = (cpu_stat(&text), single(&text), value(&text, "some"), stall(&text), io_stat(&text), cpu_max(&text));
        for slot in [Slot::CpuWeight, Slot::Io("8:0".parse().expect("a device"), IoField::ReadBytes)] {
            let _ = slot.read(&text);
        }
        if let Some(slot) = Slot::parse(&text) {
            prop_assert_eq!(slot.to_string(), text);
        }
    }

    /// What is not known, and lines in another order, change nothing.
    #[test]
    fn unknown_lines_are_passed_over(
        lines in prop::collection::vec("[a-z_]{1,12}( [0-9]{1,9}){0,2}", 0..6),
        seed in any::<u64>(),
    ) {
        let known = ["usage_usec", "nr_periods", "nr_throttled", "throttled_usec"];
        let is_known = |line: &String| known.iter().any(|key| line.starts_with(key));
        let mut all: Vec<String> = lines.into_iter().filter(|line| !is_known(line)).collect();
        for line in CPU_STAT.lines() {
            let place = usize::try_from(seed % (all.len() as u64 + 1)).expect("small");
            all.insert(place, line.to_owned());
        }
        prop_assert_eq!(cpu_stat(&all.join("\n")), cpu_stat(CPU_STAT));
    }

    #[test]
    fn what_is_written_reads_the_same(
        value in any::<Option<u64>>(), major in 0_u32..4096, minor in 0_u32..1_048_576, field in 0_usize..4,
    ) {
        let limit = value.map_or(Limit::Max, Limit::At);
        let fields = [IoField::ReadBytes, IoField::WriteBytes, IoField::ReadOperations, IoField::WriteOperations];
        let io = Slot::Io(format!("{major}:{minor}").parse().expect("a device"), fields[field]);
        let cpu = [Slot::CpuBurst, Slot::CpuWeight];
        let others = [io, Slot::MemoryHigh, Slot::MemorySwapMax, Slot::PidsMax, Slot::Freeze];
        for slot in cpu.into_iter().chain(others) {
            prop_assert_eq!(slot.read(&slot.line(limit)), Some(limit));
            prop_assert_eq!(Slot::parse(&slot.to_string()), Some(slot));
        }
    }
}
