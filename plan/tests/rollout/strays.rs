//! Pods that carry a workload's label and are none of its replicas get no traffic.

use catamaran_plan::{
    Facts,
    facts::{Selects, ServiceFacts, Stray},
    plan,
};

use crate::in_place::{desired, running};

#[test]
fn what_is_no_replica_leaves_the_service() {
    const SPEC: &str = "container: {image: a}, service: {ports: [{port: 80}]}";
    let goal = desired(SPEC);
    let service = ServiceFacts::Owned {
        uid: "service".to_owned(),
        ports: goal.service_ports.clone(),
        selects: Some(Selects::Replicas),
    };
    let steps = |spec: &str, service: &ServiceFacts, revision: Option<&str>| {
        let goal = desired(spec);
        let stray = Stray { pod: "p".to_owned(), uid: "u".to_owned(), revision: revision.map(str::to_owned) };
        let facts = Facts { service: service.clone(), strays: vec![stray], ..running(&goal) };
        plan(&goal, &facts, None).steps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let out = ["take Pod p out of the Service, because: it has the workload's label and is none of its replicas"];
    assert_eq!(steps(SPEC, &service, None), out, "quarantined by its revision label, or made by hand");
    assert_eq!(steps(SPEC, &service, Some("quarantine")), out, "of no revision that there is");
    assert!(steps(SPEC, &service, Some(&goal.revision)).is_empty(), "its set takes it over");
    assert!(steps("container: {image: a}", &ServiceFacts::Absent, None).is_empty(), "nothing to leave");
}
