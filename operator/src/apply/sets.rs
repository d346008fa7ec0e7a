//! New replica sets, and the one that is kept instead since its template means the same.

use std::fmt::Debug;

use catamaran_crds::kubevirt::VirtualMachineInstanceReplicaSet;
use catamaran_plan::{
    Goal, SetReference, SetUpdate,
    goal::{alike::is_alike, revision::Template},
    objects::{self, SetObject},
    plan::{NewSet, NoteChange, set_kind},
};
use k8s_openapi::{NamespaceResourceScope, api::apps::v1::ReplicaSet};
use kube::{Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};

use super::{Failure, Writer};
use crate::stores::SetEntry;

impl Writer {
    /// Makes a replica set; or keeps the newest one, if the API server makes the same of both templates. Then the set
    /// takes the name of the goal's template, and it is planned again.
    pub(super) async fn create_set(&self, desired: &Goal, set: &NewSet) -> Result<(), Failure> {
        let object = objects::replica_set(desired, set);
        if let Some(like) = &set.like
            && self.is_alike(desired, &object, like).await
        {
            let template_hash = Some(set.template_hash.clone());
            let notes = NoteChange { template_hash, ..NoteChange::default() };
            let update = SetUpdate { notes, ..SetUpdate::none(like.clone()) };
            self.patch_set(&desired.namespace, like, objects::set_patch(&update)).await?;
            return Err(Failure::Conflict { object: format!("{} {}", set_kind(like.hull), like.name) });
        }
        match object {
            SetObject::ReplicaSet(object) => {
                let answer = self.create(desired, &*object).await?;
                self.stores.replica_sets.enter(&answer.metadata, SetEntry::from(&answer));
            }
            SetObject::VirtualMachineInstanceReplicaSet(object) => {
                let answer = self.create(desired, &*object).await?;
                self.stores.machine_sets.enter(&answer.metadata, SetEntry::from(&answer));
            }
        }
        Ok(())
    }

    /// Whether the template of a set that is about to be made means the same as that of one that is there. What cannot
    /// be compared is not.
    async fn is_alike(&self, desired: &Goal, object: &SetObject, like: &SetReference) -> bool {
        let both = match object {
            SetObject::ReplicaSet(object) => {
                let template = |set: ReplicaSet| Some(Template::Container(Box::new(set.spec?.template?)));
                self.both(&desired.namespace, &**object, like, template).await
            }
            SetObject::VirtualMachineInstanceReplicaSet(object) => {
                let template = |set: VirtualMachineInstanceReplicaSet| {
                    Some(Template::VirtualMachine(Box::new(set.spec.template?)))
                };
                self.both(&desired.namespace, &**object, like, template).await
            }
        };
        both.is_some_and(|[wanted, there]| is_alike(&desired.in_place, &wanted, &there))
    }

    /// The template of an object as the API server would store it, and that of the set that is there.
    async fn both<K>(
        &self,
        namespace: &str,
        object: &K,
        like: &SetReference,
        template: fn(K) -> Option<Template>,
    ) -> Option<[Template; 2]>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let (api, trial) = (self.api::<K>(namespace), PostParams { dry_run: true, ..PostParams::default() });
        let there = api.get_opt(&like.name).await.ok().flatten();
        let there = there.filter(|set| set.meta().uid.as_ref() == Some(&like.uid))?;
        Some([template(api.create(&trial, object).await.ok()?)?, template(there)?])
    }
}
