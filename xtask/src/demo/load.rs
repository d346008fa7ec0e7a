//! The load step of the demo: a workload that follows its usage, and a plot of how it did.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    installation::Operator,
    usage::{
        simulator::{Settings, UsageSimulator},
        world::Load,
    },
    workloads::{apply, workloads},
};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use kube::Client;
use tokio::time::interval;

use super::{screen::Screen, story::NAMESPACE, summary::Promises};

/// The workload that is scaled.
const NAME: &str = "elastic";
/// What one replica is to use, in cores: the request times the target.
const SHARE: f64 = 0.2 * 0.6;
/// What arrives before and after the step, in cores: work for two replicas and for eight.
const CALM: f64 = 0.2;
const BUSY: f64 = 0.9;
const RESTING: i32 = 2;
const WANTED: i32 = 8;
/// How soon the count has to follow the step: a report each second, an average of 3 s, and the writes.
const REACTS_WITHIN: Duration = Duration::from_secs(5);
/// How long each part may take.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(250);

const MANIFEST: &str = "\
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: elastic}
spec:
  container: {image: docker.io/library/nginx:1.29}
  quota: {cpu: {request: 200m, limit: '1'}, memory: {request: 64Mi, limit: 128Mi}}
  scaling:
    minReplicas: 2
    maxReplicas: 10
    metrics:
      - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
    behavior:
      scaleUp: {policies: [{type: Pods, value: 10, periodSeconds: 1}]}
      scaleDown: {stabilizationWindowSeconds: 5, policies: [{type: Pods, value: 10, periodSeconds: 1}]}
    victims: LeastBusy
";

/// What was seen at one moment.
struct Moment {
    at: Duration,
    demand: f64,
    used: f64,
    wanted: i32,
    ready: i32,
}

struct Watched<'a> {
    client: &'a Client,
    screen: &'a Screen,
    simulator: UsageSimulator,
    started: Instant,
    moments: Vec<Moment>,
}

/// Applies a workload with scaling, lets its load rise and fall, and shows what came of it.
pub(super) async fn step(
    client: &Client,
    screen: &Screen,
    operators: impl Iterator<Item = &Operator>,
    promises: &mut Promises,
) -> Result<()> {
    let usages: Vec<_> = operators.filter_map(|operator| operator.usage().cloned()).collect();
    let Some(usage) = usages.first() else { bail!("no operator takes usage") };
    let addresses = usages.iter().map(|usage| usage.address).collect();
    let settings = Settings::new(addresses, &usage.server_name, usage.ca_file.clone());
    let simulator = UsageSimulator::start(client.clone(), settings)?;
    screen.say(&format!(
        "a workload that scales with its CPU usage: apply {NAME}; a simulator reports the usage of its pods"
    ));
    let mut watched = Watched { client, screen, simulator, started: Instant::now(), moments: Vec::new() };
    watched.demand(CALM);
    apply(client, NAMESPACE, MANIFEST).await?;
    watched
        .until("rests", |moment| moment.wanted == RESTING && moment.ready == RESTING && moment.used > 0.9 * CALM)
        .await?;
    watched.started = Instant::now();
    watched.moments.clear();
    watched.hold(Duration::from_secs(2)).await?;
    screen.say(&format!("the load of {NAME} rises from {CALM} to {BUSY} cores"));
    watched.demand(BUSY);
    let rose = Instant::now();
    watched.until("grows", |moment| moment.wanted >= WANTED).await?;
    let reaction = rose.elapsed();
    watched.until("carries the load", |moment| moment.ready >= WANTED).await?;
    let carried = rose.elapsed();
    promises.note(
        reaction < REACTS_WITHIN,
        format!(
            "{WANTED} replicas wanted {:.1} s after the load had risen (under {} s), ready after {:.1} s",
            reaction.as_secs_f64(),
            REACTS_WITHIN.as_secs(),
            carried.as_secs_f64()
        ),
    );
    watched.hold(Duration::from_secs(3)).await?;
    screen.say(&format!("the load of {NAME} falls to {CALM} cores"));
    watched.demand(CALM);
    watched.until("shrinks", |moment| moment.wanted == RESTING && moment.ready == RESTING).await?;
    screen.unload(NAME);
    screen.print(&plot(&watched.moments));
    Ok(())
}

impl Watched<'_> {
    fn demand(&self, cores: f64) {
        self.simulator.load(NAMESPACE, NAME, Load { base_cores: 0.0, noise: 0.02, ..Load::cores(cores) });
    }

    /// Looks on until something is seen.
    async fn until(&mut self, what: &str, seen: impl Fn(&Moment) -> bool) -> Result<()> {
        let (started, mut ticks) = (Instant::now(), interval(LOOK_EVERY));
        loop {
            ticks.tick().await;
            let moment = self.look().await?;
            let done = seen(&moment);
            self.moments.push(moment);
            if done {
                return Ok(());
            }
            if started.elapsed() > WITHIN {
                bail!("{NAME} {what}: not within {WITHIN:?}");
            }
        }
    }

    /// Looks on for some time.
    async fn hold(&mut self, time: Duration) -> Result<()> {
        let started = Instant::now();
        self.until("is watched", |_| started.elapsed() >= time).await
    }

    async fn look(&self) -> Result<Moment> {
        let workload: ElasticWorkload = workloads(self.client, NAMESPACE).get(NAME).await?;
        let status = workload.status.unwrap_or_default();
        let activity = self.simulator.activity(NAMESPACE, NAME);
        self.screen.load(NAME, activity.demand, activity.used);
        Ok(Moment {
            at: self.started.elapsed(),
            demand: activity.demand,
            used: activity.used,
            wanted: status.desired_replicas,
            ready: status.ready_replicas,
        })
    }
}

/// Time goes down; a column is a replica. The bar is at the demand: as many replicas as it needs at their target.
fn plot(moments: &[Moment]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["TIME", "DEMAND", "USAGE", "READY", "WANTED", "REPLICAS"]);
    let mut shown: Option<(u64, i32, i32)> = None;
    for moment in moments {
        let now = (moment.at.as_secs(), moment.wanted, moment.ready);
        // Once a second, and whenever a count changed.
        if shown == Some(now) {
            continue;
        }
        shown = Some(now);
        table.add_row([
            format!("{:.1} s", moment.at.as_secs_f64()),
            format!("{:.2}", moment.demand),
            format!("{:.2}", moment.used),
            moment.ready.to_string(),
            moment.wanted.to_string(),
            bar(moment),
        ]);
    }
    table.column_iter_mut().take(5).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!(
        "\nThe load step: demand and usage in cores; █ ready, ░ wanted, │ as many replicas as the demand needs\n{table}"
    )
}

fn bar(moment: &Moment) -> String {
    let at = (moment.demand / SHARE).max(0.0);
    let (ready, wanted) = (f64::from(moment.ready), f64::from(moment.wanted));
    let mut bar = String::new();
    for column in 0_u32..=12 {
        let column = f64::from(column);
        if (column..column + 1.0).contains(&at) {
            bar.push('│');
        }
        let cell = if column < ready {
            "██"
        } else if column < wanted {
            "░░"
        } else {
            "  "
        };
        // Writing to a String cannot fail.
        let _ = write!(bar, "{cell}");
    }
    bar.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_ready_wanted_and_needed() {
        let moment = Moment { at: Duration::ZERO, demand: 0.4, used: 0.4, wanted: 4, ready: 2 };
        assert_eq!(bar(&moment), "████░░│░░");
        let calm = Moment { demand: 0.2, wanted: 2, ..moment };
        assert_eq!(bar(&calm), "██│██");
    }
}
