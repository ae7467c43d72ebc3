//! One reconcile, as a value: from everything that was read to everything that is to be written.
//!
//! The order of the writes is written down here and nowhere else. Every write is idempotent and the
//! plan is made from what is read, so a stop between any two writes leads to the same end state:
//!
//! 1. the ControllerRevision, before anything that it describes;
//! 2. recorded digests, Deployments (created with their replicas, then `ortolan/autoscaler` takes
//!    that field), PodDisruptionBudgets, the revisions' Services where there are routers or Gateways;
//! 3. the stable mark, before the Service and the status that follow from it;
//! 4. the Service, then the routes that point at it, at the routers or at the revisions' Services;
//! 5. removal of what no longer runs, and of revisions past the history;
//! 6. the status, last.

mod examples;
mod gateway;
mod keep;
mod objects;
mod rollout;
mod telling;
mod unreadable;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Service},
    policy::v1::PodDisruptionBudget,
};
use ortolan_crds::{InferenceServiceStatus, Strategy, names};

use crate::{
    build::{self, Owner},
    gateway::types::{GrpcRoute, HttpRoute},
    health::Health,
    notice::Notice,
    observed::{Foreign, Observed, label},
    revision::{self, Data, Identity, Resolved, Revision, RevisionName},
    rollout::{Policy, spec::Splitter},
    status, step,
    validate::{Defaults, Validated, validate},
};

pub use keep::keep;

/// How many revisions are kept beside those that have pods, unless the spec says another number.
const HISTORY: usize = 5;
/// A foreign Service carries no label that is watched: nobody tells when its name is free again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// An object for server-side apply.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A revision's recorded digest.
    ConfigMap(Box<ConfigMap>),
    /// A revision's pods.
    Deployment(Box<Deployment>),
    /// A revision's disruption budget.
    DisruptionBudget(Box<PodDisruptionBudget>),
    /// What clients talk to, or what tells the routers of a revision's pods.
    Service(Box<Service>),
    /// How Gateways send requests over HTTP.
    HttpRoute(Box<HttpRoute>),
    /// How Gateways send requests over gRPC.
    GrpcRoute(Box<GrpcRoute>),
}

/// Kinds of objects that are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ConfigMap
    ConfigMap,
    /// ControllerRevision
    ControllerRevision,
    /// Deployment
    Deployment,
    /// PodDisruptionBudget
    DisruptionBudget,
    /// Pod
    Pod,
    /// Service
    Service,
    /// HTTPRoute
    HttpRoute,
    /// GRPCRoute
    GrpcRoute,
}

/// One write. Everything is in the InferenceService's namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create a revision.
    CreateRevision(Box<ControllerRevision>),
    /// Server-side apply by `ortolan/service`. The first apply of an object does not force, so that an
    /// object of somebody else's is met with a conflict and not overwritten.
    Apply {
        /// The object.
        object: Object,
        /// Whether we know it to be ours.
        ours: bool,
    },
    /// Server-side apply of `spec.replicas` alone, by `ortolan/autoscaler`, with force.
    Scale {
        /// The Deployment.
        deployment: RevisionName,
        /// How many pods.
        replicas: i32,
    },
    /// Mark the revision as the stable one.
    MarkStable {
        /// The revision.
        revision: RevisionName,
        /// Since when.
        at: Timestamp,
    },
    /// Delete an object if it still is the one that was seen.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

/// What a reconcile does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub writes: Vec<Write>,
    /// To be written when it differs from what was read; `None` leaves it alone.
    pub status: Option<InferenceServiceStatus>,
    /// Examples of answers that differ: written after everything else, not too often, and nothing depends on it.
    pub examples: Option<Write>,
    /// To be told when everything was written.
    pub notices: Vec<Notice>,
    /// Look again after this time even if nothing changes.
    pub requeue: Option<Duration>,
}

/// Makes the plan.
#[must_use]
pub fn plan(observed: &Observed, defaults: &Defaults, now: Timestamp) -> Plan {
    if observed.service.metadata.deletion_timestamp.is_some() {
        // Owner references do the rest.
        return Plan::default();
    }
    let revisions = match revisions(observed) {
        Ok(revisions) => revisions,
        Err(message) => return refuse(observed, "InvalidRevision", &message, now),
    };
    let validated = match validate(&observed.service, defaults) {
        Ok(validated) => validated,
        Err(invalid) => {
            return keep(
                observed,
                defaults,
                None,
                "InvalidSpec",
                &invalid.to_string(),
                now,
            );
        }
    };
    let identity = revision::identify(&validated.service, &validated.template, &revisions);
    let wanted = match &identity {
        Identity::Known(name) | Identity::New(name, _) => name.clone(),
    };
    if let Some(foreign) = foreign(observed, defaults, &wanted) {
        let kept = keep(
            observed,
            defaults,
            None,
            "NameCollision",
            &collision(&foreign),
            now,
        );
        let look_again = observed.foreign.is_some().then_some(LOOK_AGAIN);
        let requeue = kept.requeue.into_iter().chain(look_again).min();
        return Plan { requeue, ..kept };
    }
    let splitter = Splitter::of(&observed.service.spec, defaults.router.is_some());
    if splitter != Splitter::Nobody
        && let Some(message) = unreadable::candidate(observed, &wanted)
    {
        return keep(observed, defaults, None, unreadable::REASON, &message, now);
    }
    let mut planner = Planner::new(observed, defaults, revisions, wanted, now);
    if let Identity::New(name, number) = identity {
        planner.create_revision(&validated, name, number);
    }
    planner.run(&validated.policy)
}

/// The plan for a service that cannot be worked on: its status says why, everything else stays.
#[must_use]
pub fn refuse(observed: &Observed, reason: &str, message: &str, now: Timestamp) -> Plan {
    let status = status::refused(observed, reason, message, now);
    let notices = telling::told(observed, &status, reason, message);
    Plan {
        status: Some(status),
        notices,
        ..Plan::default()
    }
}

/// What the status says of an object of somebody else's.
#[must_use]
pub fn collision(foreign: &Foreign) -> String {
    let Foreign { kind, name } = foreign;
    format!(
        "a {kind} named {name} exists that is not this InferenceService's, and is left alone: rename one of the two, or delete the {kind}"
    )
}

fn revisions(observed: &Observed) -> Result<Vec<Revision>, String> {
    observed
        .revisions
        .iter()
        .filter(|r| observed.owns(&r.metadata))
        .map(Revision::read)
        .collect()
}

/// An object with our labels and a name that we need, but of another owner (an orphan, say).
fn foreign(observed: &Observed, defaults: &Defaults, wanted: &RevisionName) -> Option<Foreign> {
    if let Some(foreign) = &observed.foreign {
        return Some(foreign.clone());
    }
    let taken = |kind: &'static str,
                 meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
                 name: &str| {
        (meta.name.as_deref() == Some(name) && !observed.owns(meta)).then(|| Foreign {
            kind,
            name: name.to_owned(),
        })
    };
    let name = wanted.as_str();
    let of_the_revision = defaults.router.is_some().then_some(name);
    let splitter = Splitter::of(&observed.service.spec, defaults.router.is_some());
    let backend = build::backend_service_name(wanted);
    let of_gateways = (splitter == Splitter::Gateways).then_some(backend.as_str());
    let service_names = [Some(observed.name()), of_the_revision, of_gateways];
    let service = observed.services.iter().find_map(|s| {
        let mut names = service_names.into_iter().flatten();
        names.find_map(|name| taken("Service", &s.metadata, name))
    });
    service
        .or_else(|| {
            observed
                .revisions
                .iter()
                .find_map(|r| taken("ControllerRevision", &r.metadata, name))
        })
        .or_else(|| {
            observed
                .deployments
                .iter()
                .find_map(|d| taken("Deployment", &d.metadata, name))
        })
        .or_else(|| {
            observed
                .budgets
                .iter()
                .find_map(|b| taken("PodDisruptionBudget", &b.metadata, name))
        })
        .or_else(|| {
            observed
                .config_maps
                .iter()
                .find_map(|c| taken("ConfigMap", &c.metadata, name))
        })
        .or_else(|| {
            let mut routes = observed.routes.http.iter();
            routes.find_map(|r| taken("HTTPRoute", &r.metadata, observed.name()))
        })
        .or_else(|| {
            let name = build::grpc_route_name(observed.name());
            let mut routes = observed.routes.grpc.iter();
            routes.find_map(|r| taken("GRPCRoute", &r.metadata, &name))
        })
}

struct Planner<'a> {
    observed: &'a Observed,
    /// The routers' Service, where there are routers.
    router: Option<&'a str>,
    /// Who gives revisions their shares.
    splitter: Splitter,
    owner: Owner,
    revisions: Vec<Revision>,
    wanted: RevisionName,
    stable: Option<(RevisionName, Timestamp)>,
    health: BTreeMap<RevisionName, Health>,
    now: Timestamp,
    writes: Vec<Write>,
    notices: Vec<Notice>,
    /// Not ours: no write goes there. Empty where the wanted names were found to be free.
    taken: Vec<Foreign>,
}

impl<'a> Planner<'a> {
    fn new(
        observed: &'a Observed,
        defaults: &'a Defaults,
        revisions: Vec<Revision>,
        wanted: RevisionName,
        now: Timestamp,
    ) -> Self {
        Self {
            router: defaults.router.as_deref(),
            splitter: Splitter::of(&observed.service.spec, defaults.router.is_some()),
            owner: Owner::of(&observed.service),
            stable: stable(observed, &revisions, now),
            health: health(observed, now),
            observed,
            revisions,
            wanted,
            now,
            writes: Vec::new(),
            notices: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn create_revision(&mut self, validated: &Validated, name: RevisionName, number: i64) {
        // The revision's record was deleted by hand while its pods run: they stay as they are.
        let living = self
            .observed
            .deployment(&name)
            .and_then(|deployment| Some(deployment.spec.as_ref()?.template.clone()));
        let pod = living.unwrap_or_else(|| build::pod_template(validated, &name));
        let data = Data {
            template: validated.template.clone(),
            resolved: Resolved {
                image: validated.image.clone(),
                pod,
            },
        };
        let object = build::controller_revision(&self.owner, &name, number, &data);
        self.writes.push(Write::CreateRevision(Box::new(object)));
        let message = format!(
            "revision {name}: {} on {}",
            data.template.model.uri, data.resolved.image
        );
        self.notices
            .push(Notice::normal("RevisionCreated", message));
        self.revisions.push(Revision {
            name,
            number,
            stable_since: None,
            data,
        });
    }

    /// Decides without routers, and for a revision that serves while its service cannot be worked on.
    fn decide(&self) -> step::Decision {
        let spec = &self.observed.service.spec;
        let strategy = spec.rollout.as_ref().and_then(|rollout| rollout.strategy);
        step::step(&step::Facts {
            strategy: match strategy {
                Some(Strategy::Recreate) => step::Strategy::Recreate,
                Some(Strategy::BlueGreen | Strategy::Canary) | None => step::Strategy::BlueGreen,
            },
            suspended: spec.suspended(),
            replicas: spec.replicas(),
            stable: self.stable.as_ref().map(|(name, since)| (name, *since)),
            wanted: &self.wanted,
            health: &self.health,
            outage: self.observed.outage,
            now: self.now,
        })
    }

    fn run(mut self, policy: &Policy) -> Plan {
        let mut decision = match self.splitter {
            Splitter::Routers | Splitter::Gateways => self.decide_by_shares(policy),
            Splitter::Nobody => self.decide(),
        };
        self.record_digests();
        for (name, replicas) in &decision.run {
            self.deploy(name, *replicas);
        }
        if decision.promote {
            self.promote();
        } else if self.lost_mark() {
            self.mark();
        } else if let Some(stable) = decision.astray.clone().filter(|s| self.has_record(s)) {
            self.mark_as(stable);
        }
        self.serve(&decision.serve);
        self.route(&mut decision);
        self.remove(&decision);
        self.remove_backends(&mut decision);
        self.trim(&decision);
        let (examples, name) = self.examples(decision.rollout.as_ref());
        let rollout = decision.rollout.as_mut();
        if let Some(evidence) = rollout.and_then(|rollout| rollout.evidence.as_mut()) {
            evidence.examples = name;
        }
        let facts = self.facts();
        let status = status::decided(
            self.observed,
            &decision,
            &self.wanted,
            &self.health,
            &facts,
            self.now,
        );
        self.tell(&decision, &status);
        Plan {
            writes: self.writes,
            status: Some(status),
            examples,
            notices: self.notices,
            requeue: decision.requeue,
        }
    }

    /// The record of the stable revision was deleted by hand and made anew: it is marked anew too.
    fn lost_mark(&self) -> bool {
        let stable = self
            .stable
            .as_ref()
            .is_some_and(|(name, _)| *name == self.wanted);
        stable && revision::stable(&self.revisions).is_none()
    }

    fn mark(&mut self) {
        self.mark_as(self.wanted.clone());
    }

    fn mark_as(&mut self, revision: RevisionName) {
        // Later than every mark before it, also when the clock went back.
        let newest = self.revisions.iter().filter_map(|r| r.stable_since).max();
        let at = match newest {
            Some(newest) if newest >= self.now => newest
                .checked_add(Duration::from_millis(1))
                .unwrap_or(newest),
            _ => self.now,
        };
        self.writes.push(Write::MarkStable { revision, at });
    }

    fn promote(&mut self) {
        self.mark();
        if self.splitter != Splitter::Nobody {
            // The rollout has told of it.
            return;
        }
        let before = self
            .stable
            .as_ref()
            .filter(|(name, _)| *name != self.wanted);
        let message = match before {
            Some((old, _)) => {
                format!(
                    "revision {} is ready and gets all requests; before it {old} did",
                    self.wanted
                )
            }
            None => format!("revision {} is ready and gets all requests", self.wanted),
        };
        self.notices.push(Notice::normal("Promoted", message));
    }

    fn facts(&self) -> BTreeMap<RevisionName, status::Facts> {
        self.revisions
            .iter()
            .map(|revision| {
                let given = revision.data.template.model.digest.clone();
                let digest = given
                    .or_else(|| {
                        self.observed
                            .recorded_digest(&revision.name)
                            .map(str::to_owned)
                    })
                    .or_else(|| self.reported(&revision.name));
                let image = Some(revision.data.resolved.image.clone());
                let about = self
                    .report(&revision.name)
                    .map(|report| report.about.clone());
                let facts = status::Facts {
                    digest,
                    image,
                    about,
                };
                (revision.name.clone(), facts)
            })
            .collect()
    }
}

/// The newest mark, else what the status says, if that revision still has a Deployment: a record
/// that was deleted by hand must not take the pods with it.
fn stable(
    observed: &Observed,
    revisions: &[Revision],
    now: Timestamp,
) -> Option<(RevisionName, Timestamp)> {
    if let Some(stable) = revision::stable(revisions) {
        return stable
            .stable_since
            .map(|since| (stable.name.clone(), since));
    }
    let status = observed.service.status.as_ref()?;
    let name = RevisionName::new(status.traffic.first()?.revision.clone());
    let served = status
        .revisions
        .iter()
        .any(|r| r.name == name.as_str() && r.phase == ortolan_crds::RevisionPhase::Serving);
    (served && observed.deployment(&name).is_some()).then_some((name, now))
}

fn health(observed: &Observed, now: Timestamp) -> BTreeMap<RevisionName, Health> {
    let of_deployments = observed
        .deployments
        .iter()
        .filter(|d| observed.owns(&d.metadata))
        .filter_map(|d| label(&d.metadata, names::REVISION));
    let of_pods = observed
        .pods
        .iter()
        .filter_map(|pod| label(&pod.metadata, names::REVISION));
    let mut health = BTreeMap::new();
    for name in of_deployments.chain(of_pods) {
        let name = RevisionName::new(name);
        if let Entry::Vacant(vacant) = health.entry(name) {
            let name = vacant.key();
            let found = Health::of(observed.deployment(name), &observed.pods_of(name), now);
            vacant.insert(found);
        }
    }
    health
}

#[cfg(test)]
mod tests;
