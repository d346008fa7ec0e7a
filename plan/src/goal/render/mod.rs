//! From the hull, the quota and the placement to the template of a replica set.

mod container;
mod virtual_machine;

use std::collections::BTreeMap;

use catamaran_crds::{
    Placement,
    names::{
        NODE_QUOTA_ANNOTATION, RESTARTED_AT_ANNOTATION, REVISION_LABEL, TEMPLATE_QUOTA_ANNOTATION, WORKLOAD_LABEL,
    },
};
use catamaran_protocol::node_quota::NodeQuota;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::TopologySpreadConstraint,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

pub use container::container;
pub use virtual_machine::virtual_machine;

use crate::goal::{InPlace, Invalid, quota::Quota, revision::Template};

/// Adds the revision to the labels of a rendered template. It comes last: the revision is a hash over all the rest.
#[must_use]
pub fn with_revision(mut template: Template, revision: &str) -> Template {
    let labels = template.metadata_mut().labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    template
}

/// The template, with the quota of its pods noted on them: so one that admission changed is known for that.
pub(crate) fn with_quota_noted(mut template: Template, quota: Option<Quota>) -> Template {
    if let Some(quota) = quota {
        let annotations = template.metadata_mut().annotations.get_or_insert_default();
        annotations.insert(TEMPLATE_QUOTA_ANNOTATION.to_owned(), quota.to_string());
    }
    template
}

/// A rendered template, without the revision label, and what of it can change in place.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The template.
    pub template: Template,
    /// What can change in place.
    pub in_place: InPlace,
}

/// What each replica of a workload carries besides its template.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaMarks<'a> {
    /// The name of the workload.
    pub workload: &'a str,
    /// When a restart was last asked for.
    pub restarted_at: Option<Timestamp>,
}

/// The label that all replicas of a workload share.
#[must_use]
pub fn workload_labels(workload: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(WORKLOAD_LABEL.to_owned(), workload.to_owned())])
}

/// Metadata of replicas: the user's labels and annotations, and ours.
fn replica_metadata(
    marks: &ReplicaMarks<'_>,
    hull: &str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    node_quota: Option<&NodeQuota>,
) -> Result<ObjectMeta, Invalid> {
    if let Some(ours) = [WORKLOAD_LABEL, REVISION_LABEL].into_iter().find(|ours| labels.contains_key(*ours)) {
        return Err(Invalid::field(
            &format!("spec.{hull}.template.metadata.labels"),
            format!("{ours} is set by Catamaran; leave it out"),
        ));
    }
    let made = [NODE_QUOTA_ANNOTATION, TEMPLATE_QUOTA_ANNOTATION];
    if let Some(ours) = made.into_iter().find(|ours| annotations.contains_key(*ours)) {
        return Err(Invalid::field(
            &format!("spec.{hull}.template.metadata.annotations"),
            format!("{ours} is made from spec.quota; leave it out"),
        ));
    }
    if annotations.contains_key(RESTARTED_AT_ANNOTATION) {
        return Err(Invalid::field(
            &format!("spec.{hull}.template.metadata.annotations"),
            format!("{RESTARTED_AT_ANNOTATION} belongs into metadata.annotations of the ElasticWorkload; put it there"),
        ));
    }
    let mut labels = labels;
    let mut annotations = annotations;
    annotations.extend(marks.restarted_at.map(|time| (RESTARTED_AT_ANNOTATION.to_owned(), time.to_string())));
    annotations.extend(node_quota.map(|quota| (NODE_QUOTA_ANNOTATION.to_owned(), quota.to_annotation())));
    labels.extend(workload_labels(marks.workload));
    // An empty map reaches virt-api's webhooks as null and is refused there: left out instead.
    Ok(ObjectMeta {
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..ObjectMeta::default()
    })
}

/// Spread constraints that count this workload's replicas where the user names no others.
fn spread_constraints(placement: &Placement, workload: &str) -> Vec<TopologySpreadConstraint> {
    let mut constraints = placement.topology_spread_constraints.clone();
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert_with(|| LabelSelector {
            match_labels: Some(workload_labels(workload)),
            ..LabelSelector::default()
        });
    }
    constraints
}

/// A field that both the placement and the template set.
fn set_twice(hull: &str, field: &str) -> Invalid {
    Invalid::field(
        &format!("spec.placement.{field}"),
        format!("also set in spec.{hull}.template.spec.{field}; leave it out in one of the two"),
    )
}
