use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Semaphore, mpsc};

use super::*;

type Name = (&'static str, u32);

const LIMITS: Limits = Limits { workers: 4, longest: Duration::from_secs(100) };

/// Passes that say when they begin, and end as they are let.
struct Play {
    begun: mpsc::UnboundedSender<Name>,
    /// Passes of `slow` tenants end as there are permits; others at once.
    slow: BTreeSet<&'static str>,
    permits: Semaphore,
    again: Again,
    at_once: Mutex<BTreeMap<Name, usize>>,
    broken: mpsc::UnboundedSender<(Name, Broken, Duration)>,
    panics: AtomicUsize,
}

struct Stage {
    queue: Queue<Name>,
    play: Arc<Play>,
    begun: mpsc::UnboundedReceiver<Name>,
    broken: mpsc::UnboundedReceiver<(Name, Broken, Duration)>,
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
}

fn stage(slow: &[&'static str], again: Again, panics: usize) -> Stage {
    let ((begun, begun_seen), (broken, broken_seen)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let play = Arc::new(Play {
        begun,
        slow: slow.iter().copied().collect(),
        permits: Semaphore::new(0),
        again,
        at_once: Mutex::default(),
        broken,
        panics: panics.into(),
    });
    let (queue, stop) = (Queue::default(), CancellationToken::new());
    queue.open();
    let work = tokio::spawn(work(queue.clone(), play.clone(), LIMITS, stop.clone()));
    Stage { queue, play, begun: begun_seen, broken: broken_seen, stop, work }
}

impl Passes<Name> for Play {
    async fn pass(self: Arc<Self>, key: Name) -> Again {
        let _ = self.begun.send(key);
        {
            let mut at_once = self.at_once.lock().unwrap_or_else(PoisonError::into_inner);
            let count = at_once.entry(key).or_default();
            *count += 1;
            assert_eq!(*count, 1, "{key:?} runs twice");
        }
        if self.slow.contains(key.0) {
            self.permits.acquire().await.expect("never closed").forget();
        }
        self.at_once.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let panics = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(panics.is_err(), "planted");
        self.again
    }

    fn broken(&self, key: &Name, how: &Broken, pause: Duration) {
        let _ = self.broken.send((*key, how.clone(), pause));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_passes_all_hang_does_not_hold_up_another() {
    let mut stage = stage(&["slow"], Again::OnChange, 0);
    (0..1000).for_each(|number| stage.queue.wake_now(("slow", number)));
    for number in 0..4 {
        assert_eq!(stage.begun.recv().await, Some(("slow", number)));
    }
    stage.queue.wake_now(("other", 1));
    assert_eq!(stage.begun.recv().await, Some(("other", 1)), "in the reserve");
    stage.play.permits.add_permits(1);
    assert_eq!(stage.begun.recv().await, Some(("slow", 4)));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_that_flap_delay_another_tenant_by_one_pass() {
    let mut stage = stage(&[], Again::After(Duration::ZERO), 0);
    (0..1000).for_each(|number| stage.queue.wake_now(("flaps", number)));
    stage.begun.recv().await;
    while stage.begun.try_recv().is_ok() {}
    stage.queue.wake_now(("other", 1));
    let mut before = 0;
    while stage.begun.recv().await != Some(("other", 1)) {
        before += 1;
    }
    // Those that were on the way when it was woken, and one whose turn is before its own.
    assert!(before <= LIMITS.workers + 1, "{before}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_its_own_object_a_pause_that_doubles() {
    let mut stage = stage(&[], Again::OnChange, 2);
    stage.queue.wake_now(("a", 1));
    for seconds in [1, 2] {
        let planted = (("a", 1), Broken::Panicked("planted".to_owned()), Duration::from_secs(seconds));
        assert_eq!(stage.broken.recv().await, Some(planted));
        stage.play.at_once.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    stage.queue.wake_now(("b", 1));
    let begun =
        [stage.begun.recv().await, stage.begun.recv().await, stage.begun.recv().await, stage.begun.recv().await];
    assert_eq!(begun.iter().flatten().filter(|key| key.0 == "a").count(), 3, "{begun:?}");
    assert!(begun.contains(&Some(("b", 1))) && !stage.work.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_never_ends_is_given_up() {
    let mut stage = stage(&["hangs"], Again::OnChange, 0);
    stage.queue.wake_now(("hangs", 1));
    let late = (("hangs", 1), Broken::TooLong(LIMITS.longest), Duration::from_secs(1));
    assert_eq!(stage.broken.recv().await, Some(late));
}

#[tokio::test(start_paused = true)]
async fn work_that_waits_is_stuck_only_while_no_pass_ends() {
    let mut stage = stage(&["slow"], Again::OnChange, 0);
    let minute = Duration::from_secs(60);
    tokio::time::sleep(minute).await;
    assert_eq!(stage.queue.stuck_for(), Duration::ZERO, "nothing waits");
    stage.queue.wake_now(("slow", 0));
    stage.begun.recv().await;
    tokio::time::sleep(minute).await;
    assert_eq!(stage.queue.stuck_for(), Duration::ZERO, "one runs, and none waits");
    (1..10_000).for_each(|number| stage.queue.wake_now(("slow", number)));
    tokio::time::sleep(minute / 2).await;
    assert_eq!((stage.queue.stuck_for().as_secs(), stage.queue.depth()), (30, 9_996));
    stage.play.permits.add_permits(1);
    tokio::time::sleep(minute / 6).await;
    assert_eq!((stage.queue.stuck_for().as_secs(), stage.queue.depth()), (10, 9_995), "a backlog is no wedge");
}

#[tokio::test(start_paused = true)]
async fn on_stop_what_runs_is_finished_and_nothing_begun() {
    let mut stage = stage(&["slow"], Again::OnChange, 0);
    (0..10).for_each(|number| stage.queue.wake_now(("slow", number)));
    for _ in 0..4 {
        stage.begun.recv().await;
    }
    stage.stop.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!stage.work.is_finished());
    stage.play.permits.add_permits(4);
    stage.work.await.expect("it ends");
    assert!(stage.begun.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_queued_before_this_process_leads() {
    let queue = Queue::<Name>::default();
    queue.wake_now(("a", 1));
    queue.wake_all([("a", 2)]);
    queue.open();
    assert_eq!((queue.depth(), queue.next()), (0, None));
}
