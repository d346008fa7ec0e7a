//! Accounts, from the stream to the bill: every replica of the operator has the same, over restarts of containers and
//! agents and over the end of another replica.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use catamaran_crds::Hull;
use catamaran_metering::{Account, Request};
use catamaran_operator::{
    accounting::{
        Accounts, Metered,
        answer::{Question, Refused},
        directory::{Directory, Owner, Replica},
    },
    metrics::{Metrics, accounting::AccountingCollector},
};
use catamaran_protocol::stream::{
    Counters,
    identity::{ContainerIdentity, PodIdentity},
    proto::PodTotals,
    snapshot::{PodReading, Snapshot},
};
use jiff::{SignedDuration, Timestamp};

use crate::support::{Differences, Ground, Seen, eventually};

/// The pods that exist.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Vec<Replica>>>);

impl World {
    fn add(&self, uid: &str, started: Timestamp) {
        self.0.lock().expect("pods").push(Replica {
            uid: uid.into(),
            owner: Arc::new(Owner {
                namespace: "shop".into(),
                workload: "web".into(),
                class: Some(Some("small".into())),
            }),
            hull: Hull::Container,
            started,
            request: Request { cpu_millicores: 250, memory_bytes: 1 << 30 },
        });
    }
}

impl Directory for World {
    fn replicas(&self) -> Vec<Replica> {
        self.0.lock().expect("pods").clone()
    }

    fn find(&self, pod: &PodIdentity) -> Option<Replica> {
        self.replicas().into_iter().find(|replica| *replica.uid == *pod.uid())
    }

    fn accounts(&self) -> Vec<Account> {
        let account = |workload: &str| Account {
            namespace: "shop".into(),
            workload: workload.into(),
            class: None,
            hull: Hull::VirtualMachine,
        };
        vec![account("idle")]
    }
}

/// One replica of the operator.
struct Operator {
    ground: Ground,
    accounts: Accounts,
}

impl Operator {
    async fn start(world: &World, second: bool) -> Result<Self> {
        let accounts = Accounts::new(Arc::new(world.clone()), Timestamp::now());
        let observer = Metered { accounts: accounts.clone(), next: Arc::new(Seen::default()) };
        let differences = Differences { observer: Some(Arc::new(observer)), ..Differences::default() };
        let ground = match second {
            false => Ground::start(differences).await?,
            true => Ground::start_second(differences).await?,
        };
        ground.pods.everywhere();
        Ok(Self { ground, accounts })
    }

    fn cpu(&self) -> u64 {
        let totals = self.accounts.totals();
        totals.iter().map(|(_, amounts)| amounts.cpu_usage_usec).sum()
    }
}

/// What an agent reads of a pod: the counter of the pod's own cgroup, and a life of its container, if one runs.
fn read(seconds: u64, uid: &str, life: Option<&str>, cpu: u64) -> Snapshot {
    let containers = life.map(|life| ContainerIdentity::new("main", life.to_owned()).expect("valid"));
    let counters = Counters {
        // The container's own counter begins again with each life.
        cpu_usage_usec: cpu % 1_000_000,
        memory_working_set_bytes: 1 << 30,
        throttling: None,
        pressure: None,
    };
    let counters = containers.iter().map(|_| counters).collect();
    let pod = Arc::new(PodIdentity::new("shop", format!("web-{uid}"), uid, containers).expect("valid"));
    let totals = PodTotals { cpu_usage_usec: Some(cpu), io_read_bytes: Some(cpu / 2), ..PodTotals::default() };
    let reading = PodReading::new(pod, counters).expect("as many").with(Some(totals), None);
    let unix_usec = Timestamp::now().as_microsecond();
    Snapshot { taken: Duration::from_secs(seconds), unix_usec, pods: vec![reading] }
}

#[tokio::test]
async fn nothing_is_lost_over_restarts_and_a_failover() -> Result<()> {
    let world = World::default();
    let leader = Operator::start(&world, false).await?;
    let standby = Operator::start(&world, true).await?;
    world.add("a", Timestamp::now());
    // An old pod: what it used before is not in these accounts.
    world.add("old", Timestamp::now() - SignedDuration::from_hours(5));
    let agents = [leader.ground.agent("n1")?, standby.ground.agent("n1")?];
    for snapshot in [
        read(1, "a", Some("life-1"), 4_000_000),
        read(2, "a", Some("life-1"), 9_000_000),
        // Its container ended, and another one started; what it used at its end is in the pod's counter.
        read(3, "a", None, 11_000_000),
        read(5, "a", Some("life-2"), 13_000_000),
    ] {
        for agent in &agents {
            agent.report(snapshot.clone()).await?;
        }
    }
    for operator in [&leader, &standby] {
        eventually("the counter of the pod", || (operator.cpu() == 13_000_000).then_some(())).await?;
    }
    // The agent is killed, and the next one finds a counter that went on.
    drop(agents);
    let again = standby.ground.agent("n1")?;
    // The leader is gone before it hears of that.
    let at_the_end = leader.cpu();
    drop(leader);
    for snapshot in [read(65, "a", Some("life-2"), 40_000_000), read(66, "old", Some("life-1"), 900_000_000)] {
        again.report(snapshot).await?;
    }
    again.report(read(67, "old", Some("life-1"), 901_000_000)).await?;
    eventually("what was used meanwhile", || (standby.cpu() == 41_000_000).then_some(())).await?;
    assert_eq!(at_the_end, 13_000_000);
    // Told again by a stream that broke: nothing new.
    again.report(read(67, "old", Some("life-1"), 901_000_000)).await?;
    assert_eq!(standby.cpu(), 41_000_000);
    Ok(())
}

#[tokio::test]
async fn accounts_are_told_by_pages_and_as_counters() -> Result<()> {
    let (world, start) = (World::default(), "2026-03-01T10:30:00Z".parse::<Timestamp>()?);
    let accounts = Accounts::new(Arc::new(world.clone()), start);
    world.add("a", start);
    let at = |seconds| start + SignedDuration::from_secs(seconds);
    accounts.advance(at(7200));
    let ask = |query: &str| {
        let question = Question::read(Some(query), at(7200)).map_err(|error| error.to_string())?;
        accounts.answer("me", &question, at(7200)).map_err(|error| error.to_string())
    };
    let all = ask("").expect("an answer");
    assert_eq!((all.since, all.replica.as_str(), all.items.len(), all.continue_.clone()), (start, "me", 3, None));
    let requested: Vec<u64> = all.items.iter().map(|hour| hour.amounts.cpu_requested_usec).collect();
    assert_eq!(requested, [450_000_000, 900_000_000, 450_000_000], "250m over 30, 60 and 30 minutes");
    let memory: Vec<u64> = all.items.iter().map(|hour| hour.amounts.memory_requested_kib_seconds).collect();
    assert_eq!(memory, [1800 << 20, 3600 << 20, 1800 << 20]);
    // Page by page it is the same.
    let (mut pages, mut query) = (Vec::new(), "limit=1".to_owned());
    loop {
        let page = ask(&query).expect("a page");
        pages.extend(page.items);
        match page.continue_ {
            Some(place) => query = format!("limit=1&continue={place}"),
            None => break,
        }
    }
    assert_eq!(pages, all.items);
    assert_eq!(ask("from=2026-03-01T11:00:00Z&to=2026-03-01T12:00:00Z").expect("an answer").items.len(), 1);
    assert!(ask("namespace=lab").expect("an answer").items.is_empty());
    for (wrong, words) in [
        ("from=yesterday", "from \"yesterday\" is no time"),
        ("to=", "to \"\" is no time"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("continue=elsewhere", "continue"),
    ] {
        let problem = ask(wrong).expect_err(wrong);
        assert!(problem.contains(words), "{problem}");
    }
    assert_eq!(Question::read(Some("limit=x"), start), Err(Refused::Limit("x".to_owned())));

    // Counters of a ledger that began just now, so that reading them adds little.
    let accounts = Accounts::new(Arc::new(World::default()), Timestamp::now());
    let metrics = Metrics::default();
    metrics.collect(Box::new(AccountingCollector(accounts)));
    let text = metrics.render(0, std::iter::empty())?;
    let idle = r#"{namespace="shop",workload="idle",class="",hull="virtualMachine"} 0.0"#;
    for name in [
        "cpu_usage_seconds",
        "memory_usage_gibibyte_seconds",
        "io_read_bytes",
        "io_written_bytes",
        "cpu_requested_seconds",
        "memory_requested_gibibyte_seconds",
        "replica_seconds",
        "metered_seconds",
    ] {
        let line = format!("catamaran_workload_{name}_total{idle}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    Ok(())
}

/// A directory that looks at the accounts while it is asked.
struct Curious(World, Arc<Mutex<Option<Accounts>>>);

impl Curious {
    /// Would wait for ever if the ledger were locked by the one who asks.
    fn look(&self) {
        if let Some(accounts) = &*self.1.lock().expect("accounts") {
            let _ = accounts.totals();
        }
    }
}

impl Directory for Curious {
    fn replicas(&self) -> Vec<Replica> {
        self.look();
        self.0.replicas()
    }

    fn find(&self, pod: &PodIdentity) -> Option<Replica> {
        self.look();
        self.0.find(pod)
    }

    fn accounts(&self) -> Vec<Account> {
        self.look();
        self.0.accounts()
    }
}

#[tokio::test]
async fn nothing_is_looked_for_while_the_ledger_is_locked() -> Result<()> {
    let (world, own) = (World::default(), Arc::new(Mutex::new(None)));
    for number in 0..2000 {
        world.add(&number.to_string(), Timestamp::now());
    }
    let accounts = Accounts::new(Arc::new(Curious(world, own.clone())), Timestamp::now());
    *own.lock().expect("accounts") = Some(accounts.clone());
    let observer = Metered { accounts: accounts.clone(), next: Arc::new(Seen::default()) };
    let ground = Ground::start(Differences { observer: Some(Arc::new(observer)), ..Differences::default() }).await?;
    ground.pods.everywhere();
    // Not known yet: it is looked for.
    ground.agent("n1")?.report(read(1, "7", Some("life-1"), 4_000_000)).await?;
    eventually("the reading", || {
        let used: u64 = accounts.totals().iter().map(|(_, amounts)| amounts.cpu_usage_usec).sum();
        (used == 4_000_000).then_some(())
    })
    .await?;
    let advancing = accounts.clone();
    tokio::task::spawn_blocking(move || advancing.advance(Timestamp::now() + SignedDuration::from_secs(10))).await?;
    let charged = accounts.totals().into_iter().find(|(account, _)| *account.workload == *"web");
    assert!(charged.is_some_and(|(_, amounts)| amounts.replica_usec >= 2000 * 10_000_000), "all of them");
    Ok(())
}
