//! Golden objects: what the API server gets for a spec. The revision, a hash over the template, is part of it: a change
//! of the hash rolls out every workload of every user, so it must not change by accident.

use catamaran_crds::{ElasticWorkload, WorkloadClass};
use catamaran_plan::{
    Action, Facts,
    facts::{KubeVirt, ResizeApi, ServiceFacts},
    objects::{self, SetObject},
    plan, resolve,
};

use crate::simulator::time;

const CLASS: &str = "
apiVersion: catamaran.dev/v1alpha1
kind: WorkloadClass
metadata: {name: small}
spec:
  quota:
    cpu: {request: 250m, limit: 1500m}
    memory: {request: 512Mi, limit: 1Gi}
";

/// Everything that the first plan makes, as YAML.
fn rendered(workload: &str) -> String {
    let mut workload: ElasticWorkload = serde_saphyr::from_str(workload).expect("a workload");
    workload.metadata.uid = Some("7f0c8a52-0000-4000-8000-000000000001".to_owned());
    workload.metadata.namespace = Some("shop".to_owned());
    let class: WorkloadClass = serde_saphyr::from_str(CLASS).expect("a class");
    let desired = resolve(&workload, Some(&class)).expect("a valid workload");
    let observed = Facts {
        now: time(0),
        kubevirt: KubeVirt::Installed,
        sets: Vec::new(),
        foreign_sets: Vec::new(),
        service: ServiceFacts::Absent,
        status: catamaran_crds::ElasticWorkloadStatus::default(),
        watched_since: jiff::Timestamp::MIN,
        resize: ResizeApi::Served,
        usage_due: None,
        enforcement: Vec::new(),
        out_of_memory: Vec::new(),
        strays: Vec::new(),
        troubles: Vec::new(),
    };
    let objects = plan(&desired, &observed, None).steps.into_iter().map(|step| match step.action {
        Action::CreateSet(set) => match objects::replica_set(&desired, &set) {
            SetObject::ReplicaSet(object) => serde_saphyr::to_string(&object),
            SetObject::VirtualMachineInstanceReplicaSet(object) => serde_saphyr::to_string(&object),
        },
        Action::ApplyService { uid, ports } => serde_saphyr::to_string(&objects::service(&desired, &ports, uid)),
        other => panic!("nothing to do but to create: {other:?}"),
    });
    objects.collect::<Result<Vec<_>, _>>().expect("YAML").join("---\n")
}

fn golden(name: &str, workload: &str) {
    let objects = rendered(workload);
    insta::assert_snapshot!(name, objects);
}

#[test]
fn container_short_form() {
    golden(
        "container_short_form",
        "
metadata: {name: web}
spec:
  className: small
  container:
    image: nginx:1.29
    args: [-g, daemon off;]
    ports: [{name: http, containerPort: 80}]
    env: [{name: MODE, value: production}]
    readinessProbe: {httpGet: {path: /, port: http}}
    securityContext: {runAsNonRoot: true}
  quota: {cpu: {request: 500m}}
  replicas: 3
  placement:
    nodeSelector: {disk: fast}
    topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway}]
    priorityClassName: high
  rollout: {minReadySeconds: 5}
  service: {ports: [{name: http, port: 80, targetPort: http}, {name: admin, port: 8080}]}
",
    );
}

#[test]
fn container_without_anything() {
    golden("container_without_anything", "{metadata: {name: web}, spec: {container: {image: 'nginx:1.29'}}}");
}

#[test]
fn container_long_form() {
    golden(
        "container_long_form",
        "
metadata: {name: web}
spec:
  className: small
  container:
    template:
      metadata:
        labels: {team: sales}
        annotations: {kubectl.kubernetes.io/default-container: app}
      spec:
        containers:
        - {name: shipper, image: 'busybox:1.37', resources: {limits: {memory: 32Mi}}}
        - {name: app, image: 'nginx:1.29'}
  placement:
    tolerations: [{key: dedicated, operator: Exists}]
",
    );
}

#[test]
fn virtual_machine_short_form() {
    golden(
        "virtual_machine_short_form",
        "
metadata: {name: legacy}
spec:
  className: small
  virtualMachine:
    image: quay.io/containerdisks/debian:13
    cloudInit: {userData: '#cloud-config'}
    readinessProbe: {tcpSocket: {port: 80}}
    livenessProbe: {guestAgentPing: {}}
    terminationGracePeriodSeconds: 60
  quota: {memory: {limit: 2Gi}}
  replicas: 2
  placement: {nodeSelector: {disk: fast}}
  service: {ports: [{port: 80, targetPort: 8080}]}
",
    );
}

#[test]
fn virtual_machine_with_the_least() {
    golden(
        "virtual_machine_with_the_least",
        "
metadata: {name: legacy}
spec:
  virtualMachine: {image: 'quay.io/containerdisks/debian:13', cloudInit: {userDataSecretRef: {name: setup}}}
  quota: {memory: {limit: 256Mi}}
",
    );
}

#[test]
fn virtual_machine_long_form() {
    golden(
        "virtual_machine_long_form",
        "
metadata: {name: ledger}
spec:
  className: small
  virtualMachine:
    template:
      metadata: {labels: {team: finance}}
      spec:
        domain:
          cpu: {model: host-model}
          devices: {disks: [{name: root, disk: {bus: virtio}}]}
        volumes: [{name: root, containerDisk: {image: 'quay.io/containerdisks/ubuntu:24.04'}}]
  placement:
    affinity:
      podAntiAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
        - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {catamaran.dev/workload: ledger}}}
",
    );
}

/// A revision is what runs, not how many of it nor how it is rolled out: these edits make no new one.
#[test]
fn edits_that_make_no_revision() {
    let revision = |spec: &str| {
        let workload: ElasticWorkload =
            serde_saphyr::from_str(&format!("{{metadata: {{name: web}}, spec: {{container: {{image: a}}{spec}}}}}"))
                .expect("a workload");
        resolve(&workload, None).expect("a valid workload").revision
    };
    let plain = revision("");
    for spec in [
        ", replicas: 7",
        ", rollout: {maxSurge: 3, minReadySeconds: 9, paused: true, onFailure: Rollback}",
        ", service: {ports: [{port: 80}]}",
        ", state: Stopped",
        ", placement: {}",
        ", quota: {}",
    ] {
        assert_eq!(revision(spec), plain, "{spec}");
    }
    for spec in
        [", quota: {cpu: {limit: 1}}", ", placement: {nodeSelector: {a: b}}", ", placement: {priorityClassName: high}"]
    {
        assert_ne!(revision(spec), plain, "{spec}");
    }
}

/// Quantities that are equal in value make the same revision, however they are written.
#[test]
fn equal_quantities_make_one_revision() {
    let revision = |quota: &str| {
        let workload = format!("{{metadata: {{name: web}}, spec: {{container: {{image: a}}, quota: {quota}}}}}");
        let workload: ElasticWorkload = serde_saphyr::from_str(&workload).expect("a workload");
        resolve(&workload, None).expect("a valid workload").revision
    };
    let written = ["{cpu: {limit: '1'}, memory: {limit: 1Gi}}", "{cpu: {limit: 1000m}, memory: {limit: 1024Mi}}"];
    assert_eq!(revision(written[0]), revision(written[1]));
    assert_ne!(revision(written[0]), revision("{cpu: {limit: '1'}, memory: {limit: 1G}}"));
}
