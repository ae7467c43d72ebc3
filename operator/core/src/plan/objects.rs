//! The writes of a plan: what is missing, what differs, what is left over.

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use ortolan_crds::{Scaler, names};
use serde::Serialize;
use serde_json::Value;

use super::{HISTORY, Kind, Object, Planner, Write};
use crate::{
    build::{self, Front},
    drift, failure,
    notice::Notice,
    observed::{Report, find, label},
    revision::{self, RevisionName},
    rollout::spec::Splitter,
    step::Decision,
};

/// What is to be done about an object.
pub(super) enum Need {
    Nothing,
    Create,
    Repair(String),
}

impl Planner<'_> {
    /// A revision whose digest the user did not give is held to what its first pod fetched.
    pub(super) fn record_digests(&mut self) {
        let not_given: Vec<RevisionName> = self
            .revisions
            .iter()
            .filter(|r| r.data.template.model.digest.is_none())
            .map(|r| r.name.clone())
            .collect();
        for name in not_given {
            match self.observed.recorded_digest(&name).map(str::to_owned) {
                Some(recorded) => self.replace_strangers(&name, &recorded),
                None => {
                    let free = !self.is_taken("ConfigMap", name.as_str());
                    if let Some(digest) = self.reported(&name).filter(|_| free) {
                        let mut object = build::config_map(&self.owner, &name, &digest);
                        stamp(&mut object.metadata, &digest);
                        self.writes.push(Write::Apply {
                            object: Object::ConfigMap(Box::new(object)),
                            ours: false,
                        });
                        self.replace_strangers(&name, &digest);
                    }
                }
            }
        }
    }

    /// The digest in that report.
    pub(super) fn reported(&self, name: &RevisionName) -> Option<String> {
        self.report(name).map(|report| report.digest.clone())
    }

    /// The report of the revision's oldest pod that has one.
    pub(super) fn report(&self, name: &RevisionName) -> Option<&Report> {
        let mut pods = self.observed.pods_of(name);
        pods.sort_by_key(|pod| {
            (
                pod.metadata.creation_timestamp.clone(),
                pod.metadata.name.clone(),
            )
        });
        pods.iter()
            .find_map(|pod| self.observed.reports.get(pod.metadata.uid.as_deref()?))
    }

    /// Pods that started before the digest was recorded, and fetched something else.
    fn replace_strangers(&mut self, name: &RevisionName, digest: &str) {
        for pod in self.observed.pods_of(name) {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let Some(report) = self.observed.reports.get(&uid) else {
                continue;
            };
            if report.digest == digest || failure::is_ending(pod) {
                continue;
            }
            let pod_name = pod.metadata.name.clone().unwrap_or_default();
            self.notices.push(Notice::warning(
                "DigestMismatch",
                format!(
                    "pod {pod_name} fetched {}, but revision {name} is {digest}: replaced",
                    report.digest
                ),
            ));
            self.writes.push(Write::Delete {
                kind: Kind::Pod,
                name: pod_name,
                uid,
            });
        }
    }

    /// A revision's Deployment with its replicas, and its disruption budget.
    pub(super) fn deploy(&mut self, name: &RevisionName, replicas: i32) {
        let resolved = self
            .revisions
            .iter()
            .find(|r| r.name == *name)
            .map(|r| r.data.resolved.clone());
        if let Some(resolved) = resolved {
            let mut object = build::deployment(&self.owner, name, &resolved, None);
            let desired = seal(&mut object, |d| &mut d.metadata);
            let live = self.observed.deployment(name);
            let need = need(&desired, live);
            let owned = live.is_some_and(|d| scaled_by_us(&d.metadata));
            if let Some(spec) = object.spec.as_mut().filter(|_| !owned) {
                spec.replicas = Some(replicas);
            }
            self.apply(
                need,
                "Deployment",
                name.as_str(),
                Object::Deployment(Box::new(object)),
            );
            let mut budget = build::disruption_budget(&self.owner, name);
            let desired = seal(&mut budget, |b| &mut b.metadata);
            let live = find(&self.observed.budgets, |b| &b.metadata, name.as_str());
            let need = self::need(&desired, live);
            self.scale(name, replicas);
            self.apply(
                need,
                "PodDisruptionBudget",
                name.as_str(),
                Object::DisruptionBudget(Box::new(budget)),
            );
            if self.router.is_some() {
                self.tell_routers(name);
            }
            if self.splitter == Splitter::Gateways {
                self.back_gateways(name);
            }
        } else {
            // A revision without a record (deleted by hand) keeps its pods, and can still be scaled.
            self.scale(name, replicas);
        }
    }

    fn is_taken(&self, kind: &str, name: &str) -> bool {
        let mut taken = self.taken.iter();
        taken.any(|foreign| foreign.kind == kind && foreign.name == name)
    }

    pub(super) fn scale(&mut self, name: &RevisionName, replicas: i32) {
        if self.is_taken("Deployment", name.as_str()) {
            return;
        }
        let live = self.observed.deployment(name);
        let owned = live.is_some_and(|d| scaled_by_us(&d.metadata));
        let has = live.and_then(|d| d.spec.as_ref()?.replicas);
        if owned && has == Some(replicas) {
            return;
        }
        if live.is_none() && !self.has_record(name) {
            return;
        }
        self.writes.push(Write::Scale {
            deployment: name.clone(),
            replicas,
        });
        if let Some(has) = has.filter(|has| *has != replicas) {
            let foreign = live.and_then(|d| foreign_scaler(&d.metadata));
            self.notices.push(match foreign {
                Some(who) => {
                    let instead = match self.observed.service.spec.scaler() {
                        Some(Scaler::External) => "scale the InferenceService instead",
                        None => "write scaling.minReplicas of the InferenceService, or scaling.scaler: External and scale that",
                    };
                    let message = format!("{who} scaled Deployment {name} to {has}; set back to {replicas}: {instead}");
                    Notice::warning("ScaleReverted", message)
                }
                None => Notice::normal("Scaled", format!("revision {name}: {has} → {replicas} pods")),
            });
        }
    }

    /// The revision's Service, from which the routers know its pods.
    fn tell_routers(&mut self, name: &RevisionName) {
        self.apply_service(build::revision_service(&self.owner, name), name.as_str());
    }

    /// The Service, on the revision that serves or on the routers.
    pub(super) fn serve(&mut self, revision: &RevisionName) {
        let front = self.router.map_or(Front::Pods(revision), Front::Router);
        let object = build::service(&self.owner, front);
        self.apply_service(object, self.observed.name());
    }

    pub(super) fn apply_service(&mut self, mut object: Service, name: &str) {
        let desired = seal(&mut object, |s| &mut s.metadata);
        let need = need(
            &desired,
            find(&self.observed.services, |s| &s.metadata, name),
        );
        self.apply(need, "Service", name, Object::Service(Box::new(object)));
    }

    pub(super) fn apply(&mut self, need: Need, kind: &str, name: &str, object: Object) {
        if self.is_taken(kind, name) {
            return;
        }
        match need {
            Need::Nothing => {}
            Need::Create => self.writes.push(Write::Apply {
                object,
                ours: false,
            }),
            Need::Repair(path) => {
                self.writes.push(Write::Apply { object, ours: true });
                if !path.is_empty() {
                    let message = format!("{kind} {name} was changed by hand at {path}: set back");
                    self.notices.push(Notice::warning("DriftRepaired", message));
                }
            }
        }
    }

    /// Services, Deployments and budgets of revisions that no longer run, and Services that no router needs.
    pub(super) fn remove(&mut self, decision: &Decision) {
        for service in &self.observed.services {
            let meta = &service.metadata;
            let is_a_revisions = label(meta, names::REVISION).is_some();
            let is_needed = self.router.is_some() && runs(decision, meta);
            if self.observed.owns(meta) && is_a_revisions && !is_needed {
                self.writes.push(delete(Kind::Service, meta));
            }
        }
        // The budgets first: of one whose pods have lost their Deployment Kubernetes warns in an event.
        for budget in &self.observed.budgets {
            let meta = &budget.metadata;
            if self.observed.owns(meta) && !runs(decision, meta) {
                self.writes.push(delete(Kind::DisruptionBudget, meta));
            }
        }
        for deployment in &self.observed.deployments {
            let meta = &deployment.metadata;
            if self.observed.owns(meta) && !runs(decision, meta) {
                self.writes.push(delete(Kind::Deployment, meta));
                let name = meta.name.as_deref().unwrap_or_default();
                self.notices.push(Notice::normal(
                    "RevisionRemoved",
                    format!("revision {name}: its pods end"),
                ));
            }
        }
    }

    /// Records of revisions past the history, with their recorded digests.
    pub(super) fn trim(&mut self, decision: &Decision) {
        let stable = revision::stable(&self.revisions).map(|r| r.name.clone());
        let mut idle: Vec<_> = self
            .revisions
            .iter()
            .filter(|r| !decision.run.contains_key(&r.name))
            .filter(|r| r.name != self.wanted && Some(&r.name) != stable.as_ref())
            .map(|r| (r.number, r.name.clone()))
            .collect();
        idle.sort();
        idle.reverse();
        let rollout = self.observed.service.spec.rollout.as_ref();
        let limit = rollout.and_then(|rollout| rollout.revision_history_limit);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        for (_, name) in idle.iter().skip(limit.unwrap_or(HISTORY)) {
            let name = name.as_str();
            let map = find(&self.observed.config_maps, |c| &c.metadata, name).map(|c| &c.metadata);
            let record = find(&self.observed.revisions, |r| &r.metadata, name).map(|r| &r.metadata);
            for (kind, meta) in [(Kind::ConfigMap, map), (Kind::ControllerRevision, record)] {
                if let Some(meta) = meta.filter(|meta| self.observed.owns(meta)) {
                    self.writes.push(delete(kind, meta));
                }
            }
        }
    }
}

fn runs(decision: &Decision, meta: &ObjectMeta) -> bool {
    label(meta, names::REVISION)
        .is_some_and(|name| decision.run.contains_key(&RevisionName::new(name)))
}

pub(super) fn delete(kind: Kind, meta: &ObjectMeta) -> Write {
    Write::Delete {
        kind,
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// Stamps an object with its own hash; answers it as JSON, for the comparison with what lives.
pub(super) fn seal<K: Serialize>(
    object: &mut K,
    meta: impl Fn(&mut K) -> &mut ObjectMeta,
) -> Value {
    let mut value = to_value(object);
    let hash = revision::hash8(&value);
    value["metadata"]["annotations"][names::DESIRED] = hash.as_str().into();
    stamp(meta(object), &hash);
    value
}

fn to_value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("a Kubernetes object is JSON")
}

fn stamp(meta: &mut ObjectMeta, hash: &str) {
    meta.annotations
        .get_or_insert_default()
        .insert(names::DESIRED.into(), hash.into());
}

/// Whether an object has to be written.
pub(super) fn differs(desired: &Value, live: Option<&impl Serialize>) -> bool {
    !matches!(need(desired, live), Need::Nothing)
}

fn need(desired: &Value, live: Option<&impl Serialize>) -> Need {
    need_by(drift::differs, desired, live)
}

/// Of an object whose lists have one owner: what was added to one by hand is drift, too.
pub(super) fn need_in_order(desired: &Value, live: Option<&impl Serialize>) -> Need {
    need_by(drift::differs_in_order, desired, live)
}

fn need_by(
    differs: fn(&Value, &Value) -> Option<String>,
    desired: &Value,
    live: Option<&impl Serialize>,
) -> Need {
    let Some(live) = live else {
        return Need::Create;
    };
    match differs(desired, &to_value(live)) {
        None => Need::Nothing,
        Some(path) if path.contains(names::DESIRED) => Need::Repair(String::new()),
        Some(path) => Need::Repair(path),
    }
}

/// Whether `ortolan/autoscaler` owns `spec.replicas`, so that `ortolan/service` may leave it out: a
/// sole owner that omits the field resets it to 1.
fn scaled_by_us(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(names::MANAGER_AUTOSCALER)
            && entry.operation.as_deref() == Some("Apply")
    })
}

/// Who else wrote `spec.replicas`, judged by the newest entry that is not ours or the cluster's own.
fn foreign_scaler(meta: &ObjectMeta) -> Option<String> {
    let ours = [
        names::MANAGER_SERVICE,
        names::MANAGER_AUTOSCALER,
        names::MANAGER_STATUS,
    ];
    meta.managed_fields
        .iter()
        .flatten()
        .filter(|entry| {
            entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
        })
        .filter_map(|entry| entry.manager.clone())
        .find(|manager| !ours.contains(&manager.as_str()))
}
