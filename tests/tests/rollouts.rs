//! Canaries against a real API server: the real operator and an EndpointSlice of routers; the routers' counts are played
//! ([`ortolan_tests::routers`]), and so are the pods ([`ortolan_tests::cluster`], [`ortolan_tests::pods`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::ResourceExt;
use ortolan_crds::{InferenceService, InferenceServiceStatus, RolloutPhase, RolloutStatus, names};
use ortolan_tests::{
    Cluster, Operator, Routers, World, pods,
    routers::Conduct,
    tap::Tap,
    wire::Wire,
    world::{condition, spec, world_for},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::lifecycle::revision_of;

mod changes;
mod crashes;
mod ends;
mod faults;
mod troubles;

/// So many of these tests run at once: each has a cluster, routers and an operator that is never idle, and the others of
/// the suite have to get on beside them.
static STAGES: Semaphore = Semaphore::const_new(6);
/// How long one may take. One that plays every trouble there is takes the longest.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

fn on_stage<F>(test: impl FnOnce(Arc<World>) -> F)
where
    F: Future<Output = ()>,
{
    let _place = futures::executor::block_on(STAGES.acquire()).expect("it is never closed");
    world_for(LONGEST, test);
}

/// One request in three is bad: less than the half at which no test is needed.
const WORSE: Conduct = Conduct {
    bad: 0.35,
    millis: 20,
};
/// What no test is needed for.
const HOPELESS: Conduct = Conduct {
    bad: 0.9,
    millis: 20,
};

/// A service whose rollouts are quick.
fn canary(file: &str) -> Value {
    let steps: Vec<Value> = [5, 10, 20, 30, 40, 50]
        .map(|weight| json!({"weight": weight, "soak": "1s"}))
        .into();
    let mut spec = spec(file);
    spec["rollout"] = json!({
        "steps": steps, "analysis": {"minRequests": 20, "settle": "10s"},
    });
    spec
}

/// The same with two steps.
fn short(file: &str) -> Value {
    let mut spec = canary(file);
    spec["rollout"]["steps"] = json!([{"weight": 10, "soak": "1s"}, {"weight": 50, "soak": "2s"}]);
    spec
}

/// The revision of `m` that a spec asks for.
fn named(spec: &Value) -> String {
    let service = json!({
        "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
        "metadata": {"name": "m"}, "spec": spec,
    });
    revision_of(&serde_json::from_value(service).expect("a service"))
}

/// A namespace with pods, routers and an operator that knows of them.
struct Play {
    w: Arc<World>,
    cluster: Cluster,
    routers: Routers,
    operator: Option<Operator>,
}

impl Play {
    async fn start(w: &Arc<World>) -> Self {
        let mut play = Self {
            w: Arc::clone(w),
            cluster: Cluster::start(w, pods::telling()),
            routers: Routers::start(w).await,
            operator: None,
        };
        play.operate(Tap::default(), None);
        play
    }

    /// An operator that knows of the routers.
    fn operate(&mut self, tap: Tap, wire: Option<&Wire>) {
        let options = self.routers.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.operator = Some(Operator::through(&self.w, &options, tap, wire));
    }

    /// Ends the operator as SIGKILL does.
    async fn kill(&mut self) {
        if let Some(operator) = self.operator.take() {
            operator.kill().await;
        }
    }

    /// `m` serves; answers its revision.
    async fn first(&self, spec: Value) -> String {
        self.w.create("m", spec).await;
        let service = self.w.until_ready_is("m", "True", "Serving").await;
        self.w.until_event("m", "Promoted", "").await;
        revision_of(&service)
    }

    /// Another spec; answers the revision that it asks for.
    async fn change(&self, spec: Value) -> String {
        let edited = self.w.edit("m", json!({"spec": spec})).await;
        revision_of(&edited)
    }

    /// Until the rollout looks like this.
    async fn until(
        &self,
        what: &str,
        is: impl Fn(&RolloutStatus, &InferenceServiceStatus) -> bool,
    ) -> InferenceService {
        let is = |service: &InferenceService| {
            let status = service.status.as_ref();
            status.is_some_and(|status| {
                let rollout = status.rollout.as_ref();
                rollout.is_some_and(|rollout| is(rollout, status))
            })
        };
        self.w.until_service(what, "m", is).await
    }

    /// Until the candidate has this share.
    async fn until_weight(&self, candidate: &str, least: i32) -> InferenceService {
        let what = format!("{candidate} has {least} %");
        self.until(&what, |_, status| weight(status, candidate) >= least)
            .await
    }

    /// Until the revision failed and the stable one has everything.
    async fn until_failed(&self, candidate: &str, stable: &str) -> InferenceService {
        let failed = self
            .until("it failed", |rollout, _| {
                rollout.phase == RolloutPhase::Failed
                    && rollout.candidate.as_deref() == Some(candidate)
            })
            .await;
        let status = failed.status.as_ref().expect("a status");
        assert_eq!(weights(status), [(stable.to_owned(), 100)]);
        let ready = condition(&failed, "Ready").expect("a condition");
        assert_eq!((&*ready.status, &*ready.reason), ("False", "RolloutFailed"));
        failed
    }

    /// Until the revision is the stable one; nothing else is left of the rollout.
    async fn until_promoted(&self, revision: &str) -> InferenceService {
        let service = self
            .until("it is promoted", |rollout, _| {
                rollout.phase == RolloutPhase::Stable && rollout.stable.as_deref() == Some(revision)
            })
            .await;
        let status = service.status.as_ref().expect("a status");
        assert_eq!(weights(status), [(revision.to_owned(), 100)]);
        assert_eq!(marked(&self.w).await, revision);
        service
    }

    /// Commands, by the annotation.
    async fn command(&self, command: &str) {
        let annotations = json!({"metadata": {"annotations": {(names::COMMAND): command}}});
        self.w.edit::<InferenceService>("m", annotations).await;
    }

    /// The shares of a revision in the order in which they were seen, repetitions left out.
    fn shares(&self, revision: &str) -> Vec<i32> {
        let seen = self.routers.seen("m");
        let mut shares: Vec<i32> = seen.iter().map(|status| weight(status, revision)).collect();
        shares.dedup();
        shares
    }

    /// How often events of this reason were told of that contain the words.
    async fn told(&self, reason: &str, words: &str) -> i32 {
        let events = self.w.events("m").await;
        let events = events.iter().filter(|event| {
            event.reason.as_deref() == Some(reason)
                && event.note.as_deref().unwrap_or_default().contains(words)
        });
        events
            .map(|event| event.series.as_ref().map_or(1, |series| series.count))
            .sum()
    }
}

fn weight(status: &InferenceServiceStatus, revision: &str) -> i32 {
    let found = status.traffic.iter().find(|t| t.revision == revision);
    found.map_or(0, |traffic| traffic.weight)
}

fn weights(status: &InferenceServiceStatus) -> Vec<(String, i32)> {
    let shares = status.traffic.iter();
    shares.map(|t| (t.revision.clone(), t.weight)).collect()
}

fn rollout(service: &InferenceService) -> RolloutStatus {
    let status = service.status.clone().unwrap_or_default();
    status.rollout.expect("a rollout")
}

/// The revision whose record has the newest mark.
async fn marked(w: &World) -> String {
    use k8s_openapi::api::apps::v1::ControllerRevision;
    let list = w
        .api::<ControllerRevision>()
        .list(&kube::api::ListParams::default())
        .await;
    let mut marks: Vec<(jiff::Timestamp, String)> = list
        .expect("a list")
        .items
        .iter()
        .filter_map(|record| {
            let mark = record.annotations().get(names::STABLE)?;
            Some((mark.parse().expect("a time"), record.name_any()))
        })
        .collect();
    marks.sort();
    marks.pop().expect("a mark").1
}

/// Everybody who wrote a part of the spec.
fn writers_of_the_spec(service: &InferenceService) -> BTreeSet<String> {
    let entries = service.managed_fields().iter();
    let spec = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.get("f:spec").is_some())
    });
    spec.filter_map(|entry| entry.manager.clone()).collect()
}
