//! The demo on simulated nodes. Each step says what it does, waits for what has to come of it, and notes what was
//! promised.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use catamaran_crds::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet};
use catamaran_e2e::{
    control_plane::ControlPlane,
    history::{Moment, Recorder},
    installation::{Installation, Operator, SYSTEM, operator_user},
    kubevirt::{self, Knobs, StandIn},
    tools::{Tool, Tools},
    wait::eventually,
    workloads::{apply, wait_ready, workloads},
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    Stage,
    end::{delete_all, gone},
    live::Live,
    load,
    screen::Screen,
    summary::{Promises, writes},
};
use crate::cargo::workspace;

/// Where the workloads are.
pub(super) const NAMESPACE: &str = "demo";
/// How many simulated nodes there are.
const NODES: u32 = 3;
/// The workload that is changed.
const WEB: &str = "web";
/// The two operators.
const OPERATORS: [&str; 2] = ["operator-a", "operator-b"];
/// How soon a standby has to lead after the leader was killed; its lease holds for 15 s.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(20);

/// Everything that runs. The control plane is dropped last: all else runs on it.
pub(super) struct Simulated {
    screen: Arc<Screen>,
    _live: Live,
    recorder: Recorder,
    operators: Vec<(String, Operator)>,
    installation: Installation,
    _kubevirt: StandIn,
    client: Client,
    control_plane: ControlPlane,
}

impl Stage for Simulated {
    const READY: &str = "a control plane with nodes, KubeVirt's stand-in, the chart and two operators";
    const READY_WITHIN: Option<Duration> = Some(Duration::from_secs(20));

    async fn set(screen: Arc<Screen>) -> Result<Self> {
        let control_plane = ControlPlane::builder().kwok_nodes(NODES).start().await?;
        screen.say(&format!("control plane with {NODES} simulated nodes at {}", control_plane.server()));
        let client = control_plane.client();
        let kubevirt = async { StandIn::start(kubevirt::client(&control_plane).await?, Knobs::default()).await };
        let values = json!({"usage": {"enabled": true, "certificateSecret": "usage-tls"}});
        let chart = Installation::install(&control_plane, values);
        let (kubevirt, installation) = tokio::try_join!(kubevirt, chart)?;
        screen.say("KubeVirt's stand-in runs, and the chart is installed by Helm");
        let mut operators = Vec::new();
        for name in OPERATORS {
            operators.push((name.to_owned(), installation.spawn(&control_plane, name)?));
        }
        for (_, operator) in &mut operators {
            operator.ready().await?;
        }
        control_plane.create_namespace(NAMESPACE).await?;
        let recorder = Recorder::start(&client, NAMESPACE, WEB, true).await?;
        let live = Live::start(&client, NAMESPACE, true, screen.clone());
        Ok(Self { screen, _live: live, recorder, operators, installation, _kubevirt: kubevirt, client, control_plane })
    }

    fn control_plane(&mut self) -> &mut ControlPlane {
        &mut self.control_plane
    }

    async fn play(&mut self, promises: &mut Promises, keep: bool) -> Result<()> {
        self.start_workloads(promises).await?;
        self.update_image(promises).await?;
        self.switch_hull(promises).await?;
        self.follow_load(promises).await?;
        self.kill_leader(promises).await?;
        if keep {
            self.replace_killed().await?;
        } else {
            self.delete_all(promises).await?;
        }
        writes(&self.control_plane, NAMESPACE, &self.screen)
    }

    fn way_in(&self) -> Result<String> {
        let tools = Tools::prepare(&[Tool::Kubectl])?;
        let kubectl = tools.path(Tool::Kubectl)?.display();
        Ok(format!("kubectl: {kubectl}; the workloads are in the namespace {NAMESPACE}"))
    }
}

impl Simulated {
    /// Applies the examples of the documentation: a class, containers, virtual machines.
    async fn start_workloads(&self, promises: &mut Promises) -> Result<()> {
        self.screen
            .say("apply docs/examples/workload-class.yaml, web.yaml (containers) and machine.yaml (virtual machines)");
        let start = Instant::now();
        for example in ["workload-class", "web", "machine"] {
            apply(&self.client, NAMESPACE, &text(example)?).await?;
        }
        for workload in workloads(&self.client, NAMESPACE).list(&Default::default()).await? {
            wait_ready(&self.client, NAMESPACE, &workload.name_any()).await?;
        }
        promises.note(true, format!("containers and virtual machines ready in {:.1} s", start.elapsed().as_secs_f64()));
        Ok(())
    }

    /// A new image, as `kubectl apply` of a changed file.
    async fn update_image(&self, promises: &mut Promises) -> Result<()> {
        let before = text("web")?;
        let image = before
            .lines()
            .find_map(|line| line.trim().strip_prefix("image: "))
            .context("docs/examples/web.yaml has an image")?;
        self.screen.say(&format!("a new image for {WEB}: {image}-alpine"));
        let after = before.replace(image, &format!("{image}-alpine"));
        self.roll_out("image update", &after, promises).await
    }

    /// The same workload in virtual machines.
    async fn switch_hull(&self, promises: &mut Promises) -> Result<()> {
        self.screen.say(&format!("{WEB} from containers to virtual machines: apply docs/examples/web-as-machine.yaml"));
        self.roll_out("switch from containers to virtual machines", &text("web-as-machine")?, promises).await
    }

    /// A workload whose load rises and falls.
    async fn follow_load(&self, promises: &mut Promises) -> Result<()> {
        load::step(&self.client, &self.screen, self.operators.iter().map(|(_, operator)| operator), promises).await
    }

    /// Applies a change of the web workload, and looks at its availability at every watch event until the change is
    /// through.
    async fn roll_out(&self, what: &str, yaml: &str, promises: &mut Promises) -> Result<()> {
        let before = self.version().await?;
        let start = Instant::now();
        apply(&self.client, NAMESPACE, yaml).await?;
        let workload = wait_ready(&self.client, NAMESPACE, WEB).await?;
        let took = start.elapsed().as_secs_f64();
        let hull = workload.status.and_then(|status| status.hull).map(|hull| hull.to_string()).unwrap_or_default();
        self.screen.say(&format!("{what}: done in {took:.1} s, {WEB} runs as {hull}"));
        self.availability(&format!("{what} in {took:.1} s"), before, promises).await
    }

    /// Notes the lowest availability of the web workload since a version.
    async fn availability(&self, what: &str, since: u64, promises: &mut Promises) -> Result<()> {
        // The watches of the recorder must have come as far as what was waited for.
        let reached = self.version().await?;
        eventually("the recorder's watches", Duration::from_secs(10), || async {
            Ok((self.recorder.history().end()?.version >= reached).then_some(()))
        })
        .await?;
        let history = self.recorder.history();
        let moments = history.0.iter().filter(|moment| moment.version >= since);
        let wanted = moments.clone().map(|moment| moment.desired).min().context("nothing was recorded")?;
        let lowest = moments.clone().map(Moment::available).min().unwrap_or_default();
        let broken = history.check_bounds().err();
        promises.note(
            broken.is_none(),
            format!("{what}: at least {lowest} of {wanted} available at each of {} moments", moments.count()),
        );
        if let Some(error) = broken {
            self.screen.say(&format!("{error}"));
        }
        Ok(())
    }

    /// The version of the web workload: where it stands in the order of all changes.
    async fn version(&self) -> Result<u64> {
        let workload = workloads(&self.client, NAMESPACE).get(WEB).await?;
        Ok(workload.resource_version().context("an object has a version")?.parse()?)
    }

    /// Kills the operator that leads, and changes the count of replicas: the other one has to see to it.
    async fn kill_leader(&mut self, promises: &mut Promises) -> Result<()> {
        let before = self.version().await?;
        let leader = self.leader().await?;
        let killed_at = jiff::Timestamp::now();
        let killed = Instant::now();
        let position =
            self.operators.iter().position(|(name, _)| *name == leader).context("an operator of ours leads")?;
        self.operators.remove(position).1.kill()?;
        let wanted = workloads(&self.client, NAMESPACE).get(WEB).await?.spec.replicas.unwrap_or(1) + 1;
        self.screen
            .say(&format!("SIGKILL for the leader {leader}; scale {WEB} to {wanted} (its lease holds for 15 s)"));
        let scale = json!({"spec": {"replicas": wanted}});
        workloads(&self.client, NAMESPACE).patch_scale(WEB, &PatchParams::default(), &Patch::Merge(scale)).await?;

        let successor = eventually("a new leader", 2 * TAKEOVER_WITHIN, || async {
            let now = self.leader().await?;
            Ok((now != leader).then_some(now))
        })
        .await?;
        let took = killed.elapsed();
        self.screen.say(&format!("{successor} leads, {:.1} s after the kill", took.as_secs_f64()));
        promises.note(
            took < TAKEOVER_WITHIN,
            format!("takeover after SIGKILL in {:.1} s (under {} s)", took.as_secs_f64(), TAKEOVER_WITHIN.as_secs()),
        );
        wait_ready(&self.client, NAMESPACE, WEB).await?;
        self.availability("during the takeover", before, promises).await?;

        let writes = self.control_plane.audit().writes_between(killed_at, jiff::Timestamp::now())?;
        let mut writes = writes.iter().filter(|write| write.user == operator_user() && write.resource != "leases");
        let late = writes.clone().filter(|write| write.user_agent.contains(&leader)).count();
        let first = writes.any(|write| write.user_agent.contains(&successor));
        promises.note(late == 0 && first, "one writer at a time: after the kill only the successor wrote".to_owned());
        Ok(())
    }

    /// The name of the operator that holds the lease.
    async fn leader(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM);
        let leases = leases.list(&Default::default()).await?;
        let holder = leases.iter().find_map(|lease| lease.spec.as_ref()?.holder_identity.clone());
        let holder = holder.context("nobody holds the lease")?;
        Ok(holder.split('_').next().unwrap_or_default().to_owned())
    }

    /// A standby again, for who wants to play on.
    async fn replace_killed(&mut self) -> Result<()> {
        let name = "operator-c".to_owned();
        let operator = self.installation.start(&self.control_plane, &name).await?;
        self.operators.push((name, operator));
        Ok(())
    }

    /// Deletes the workloads and the class, and waits until everything that they owned is gone.
    async fn delete_all(&self, promises: &mut Promises) -> Result<()> {
        self.screen.say("delete everything");
        let start = Instant::now();
        delete_all(&self.client, NAMESPACE).await?;
        gone::<VirtualMachineInstanceReplicaSet>(&self.client, NAMESPACE).await?;
        gone::<VirtualMachineInstance>(&self.client, NAMESPACE).await?;
        gone::<Service>(&self.client, NAMESPACE).await?;
        promises.note(true, format!("deleted, with all that they owned, in {:.1} s", start.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// An example of the documentation.
fn text(example: &str) -> Result<String> {
    let path = workspace().join("docs/examples").join(format!("{example}.yaml"));
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
