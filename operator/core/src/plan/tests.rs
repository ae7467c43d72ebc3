//! Plans carried out on a small world in memory: what converges, in which order, and what is left
//! alone. The same on a real API server is in `tests/`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use ortolan_crds::{InferenceService, InferenceServiceSpec, Provider};
use serde_json::{Value, json};

use super::*;

mod gateway;
mod routers;
mod unreadable;

/// What an API server and a controller manager would hold and do, as far as a plan can see it.
#[derive(Clone)]
struct World {
    observed: Observed,
    now: Timestamp,
    uids: u32,
    router: Option<String>,
    /// Of the route that was written last.
    generation: i64,
    /// Of a hundred answers of a candidate that are compared, so many differ.
    differ: u64,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut service = InferenceService::new("m", read(spec));
        service.metadata.namespace = Some("ns".into());
        service.metadata.uid = Some("owner".into());
        service.metadata.generation = Some(1);
        let observed = Observed {
            service,
            ..Observed::default()
        };
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        Self {
            observed,
            now,
            uids: 0,
            router: None,
            generation: 0,
            differ: 0,
        }
    }

    fn behind_routers(spec: Value) -> Self {
        Self {
            router: Some("router.system.svc.cluster.local".into()),
            ..Self::new(spec)
        }
    }

    fn change(&mut self, spec: Value) {
        self.observed.service.spec = read::<InferenceServiceSpec>(spec);
        *self.observed.service.metadata.generation.get_or_insert(0) += 1;
    }

    fn plan(&self) -> Plan {
        let images = BTreeMap::from([(Provider::CPU, "cpu:1".into())]);
        plan(
            &self.observed,
            &Defaults {
                images,
                router: self.router.clone(),
                ..Defaults::default()
            },
            self.now,
        )
    }

    fn uid(&mut self) -> Option<String> {
        self.uids += 1;
        Some(format!("u{}", self.uids))
    }

    /// Carries out at most `limit` writes, and the status when none is left over.
    fn carry_out(&mut self, plan: Plan, limit: usize) -> usize {
        let count = plan.writes.len();
        for write in plan.writes.into_iter().take(limit) {
            self.write(write);
        }
        if limit > count {
            self.observed.service.status = plan.status;
        }
        count
    }

    fn write(&mut self, write: Write) {
        let uid = self.uid();
        let o = &mut self.observed;
        match write {
            Write::CreateRevision(r) => put(&mut o.revisions, |r| &mut r.metadata, *r, uid),
            Write::Apply {
                object: Object::ConfigMap(c),
                ..
            } => {
                put(&mut o.config_maps, |c| &mut c.metadata, *c, uid);
            }
            Write::Apply {
                object: Object::Deployment(d),
                ..
            } => {
                let before = o
                    .deployments
                    .iter()
                    .find(|b| b.metadata.name == d.metadata.name);
                let mut d = *d;
                if let (Some(spec), Some(before)) = (&mut d.spec, before) {
                    spec.replicas = spec
                        .replicas
                        .or(before.spec.as_ref().and_then(|s| s.replicas));
                    d.metadata
                        .managed_fields
                        .clone_from(&before.metadata.managed_fields);
                }
                put(&mut o.deployments, |d| &mut d.metadata, d, uid);
            }
            Write::Apply {
                object: Object::DisruptionBudget(b),
                ..
            } => {
                put(&mut o.budgets, |b| &mut b.metadata, *b, uid);
            }
            Write::Apply {
                object: Object::Service(s),
                ..
            } => {
                let made = crate::observed::find(
                    &o.services,
                    |s| &s.metadata,
                    s.metadata.name.as_deref().unwrap_or_default(),
                );
                let made = made.and_then(|s| s.metadata.creation_timestamp.clone());
                let mut s = *s;
                s.metadata.creation_timestamp = made.or(Some(Time(self.now)));
                put(&mut o.services, |s| &mut s.metadata, s, uid);
            }
            Write::Apply {
                object: Object::HttpRoute(r),
                ..
            } => {
                self.generation += 1;
                let mut r = *r;
                r.metadata.generation = Some(self.generation);
                put(&mut o.routes.http, |r| &mut r.metadata, r, uid);
            }
            Write::Apply {
                object: Object::GrpcRoute(r),
                ..
            } => {
                self.generation += 1;
                let mut r = *r;
                r.metadata.generation = Some(self.generation);
                put(&mut o.routes.grpc, |r| &mut r.metadata, r, uid);
            }
            Write::Scale {
                deployment,
                replicas,
            } => {
                let found = o
                    .deployments
                    .iter_mut()
                    .find(|d| d.metadata.name.as_deref() == Some(deployment.as_str()))
                    .expect("a Deployment is created before it is scaled");
                found.spec.as_mut().expect("a spec").replicas = Some(replicas);
                found.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
                    manager: Some(names::MANAGER_AUTOSCALER.into()),
                    operation: Some("Apply".into()),
                    ..ManagedFieldsEntry::default()
                }]);
            }
            Write::MarkStable { revision, at } => {
                let found = o
                    .revisions
                    .iter_mut()
                    .find(|r| r.metadata.name.as_deref() == Some(revision.as_str()))
                    .expect("a revision is created before it is marked");
                found
                    .metadata
                    .annotations
                    .get_or_insert_default()
                    .insert(names::STABLE.into(), at.to_string());
            }
            Write::Delete { kind, name, .. } => match kind {
                Kind::ConfigMap => drop_named(&mut o.config_maps, |c| &c.metadata, &name),
                Kind::ControllerRevision => drop_named(&mut o.revisions, |r| &r.metadata, &name),
                Kind::Deployment => drop_named(&mut o.deployments, |d| &d.metadata, &name),
                Kind::DisruptionBudget => drop_named(&mut o.budgets, |b| &b.metadata, &name),
                Kind::Pod => drop_named(&mut o.pods, |p| &p.metadata, &name),
                Kind::Service => drop_named(&mut o.services, |s| &s.metadata, &name),
                Kind::HttpRoute => drop_named(&mut o.routes.http, |r| &r.metadata, &name),
                Kind::GrpcRoute => drop_named(&mut o.routes.grpc, |r| &r.metadata, &name),
            },
        }
    }

    /// Pods as the Deployments want them, all ready.
    fn settle_pods(&mut self) {
        self.observed.pods.clear();
        for deployment in self.observed.deployments.clone() {
            let replicas = deployment.spec.and_then(|s| s.replicas).unwrap_or(1);
            let labels = deployment.metadata.labels.clone();
            for i in 0..replicas {
                let name = format!(
                    "{}-{i}",
                    deployment.metadata.name.clone().unwrap_or_default()
                );
                self.observed.pods.push(read(json!({
                    "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": labels},
                    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
                })));
            }
        }
    }

    /// One look: plans, carries it out, and lets the time go by that it asks for. Answers whether there was nothing left
    /// to do.
    fn look(&mut self) -> bool {
        self.play_routers();
        let plan = self.plan();
        let wait = plan.requeue;
        let is_over = plan.writes.is_empty()
            && plan.examples.is_none()
            && wait.is_none()
            && plan.status == self.observed.service.status;
        let examples = plan.examples.clone();
        self.carry_out(plan, usize::MAX);
        examples.into_iter().for_each(|write| self.write(write));
        self.settle_pods();
        self.now = self
            .now
            .checked_add(wait.unwrap_or_default())
            .expect("a time");
        is_over
    }

    /// Until nothing is left to do; answers the number of plans that had writes.
    fn converge(&mut self) -> usize {
        for round in 0..2_000 {
            if self.look() {
                return round;
            }
        }
        panic!("does not converge: {:#?}", self.plan());
    }

    /// What is left at the end, without what differs from run to run.
    fn end_state(&self) -> Value {
        let o = &self.observed;
        let mut state = json!({
            "revisions": o.revisions.iter().map(|r| (r.metadata.name.clone(), r.revision)).collect::<Vec<_>>(),
            "deployments": o.deployments.iter().map(|d| (d.metadata.name.clone(), d.spec.clone())).collect::<Vec<_>>(),
            "services": o.services.iter().map(|s| s.spec.clone()).collect::<Vec<_>>(),
            "budgets": o.budgets.iter().map(|b| b.metadata.name.clone()).collect::<Vec<_>>(),
            "status": o.service.status,
        });
        for condition in state["status"]["conditions"]
            .as_array_mut()
            .expect("conditions")
        {
            condition["lastTransitionTime"] = Value::Null;
        }
        if let Some(rollout) = state["status"]["rollout"].as_object_mut() {
            for at in ["since", "generation", "state"] {
                rollout.remove(at);
            }
        }
        state
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn put<K>(
    objects: &mut Vec<K>,
    meta: impl Fn(&mut K) -> &mut ObjectMeta,
    mut object: K,
    uid: Option<String>,
) {
    let name = meta(&mut object).name.clone();
    meta(&mut object).uid = uid;
    objects.retain_mut(|o| meta(o).name != name);
    let at = objects
        .iter_mut()
        .position(|o| meta(o).name > name)
        .unwrap_or(objects.len());
    objects.insert(at, object);
}

fn drop_named<K>(objects: &mut Vec<K>, meta: impl Fn(&K) -> &ObjectMeta, name: &str) {
    objects.retain(|object| meta(object).name.as_deref() != Some(name));
}

fn one() -> Value {
    json!({"model": {"uri": "https://a/1.onnx"}})
}

fn two() -> Value {
    json!({"model": {"uri": "https://a/2.onnx"}, "scaling": {"minReplicas": 2}})
}

fn told(plan: &Plan) -> Vec<&str> {
    plan.notices.iter().map(|notice| &*notice.reason).collect()
}

fn verbs(plan: &Plan) -> Vec<&'static str> {
    plan.writes
        .iter()
        .map(|write| match write {
            Write::CreateRevision(_) => "revision",
            Write::Apply {
                object: Object::ConfigMap(_),
                ..
            } => "digest",
            Write::Apply {
                object: Object::Deployment(_),
                ..
            } => "deployment",
            Write::Apply {
                object: Object::DisruptionBudget(_),
                ..
            } => "budget",
            Write::Apply {
                object: Object::Service(_),
                ..
            } => "service",
            Write::Apply {
                object: Object::HttpRoute(_) | Object::GrpcRoute(_),
                ..
            } => "route",
            Write::Scale { .. } => "scale",
            Write::MarkStable { .. } => "mark",
            Write::Delete { .. } => "delete",
        })
        .collect()
}

#[test]
fn a_new_service_is_made_in_this_order_and_then_left_alone() {
    let mut world = World::new(one());
    let plan = world.plan();
    assert_eq!(
        verbs(&plan),
        ["revision", "deployment", "scale", "budget", "service"]
    );
    world.converge();
    let again = world.plan();
    assert!(
        again.writes.is_empty() && again.notices.is_empty(),
        "{again:#?}"
    );
    assert_eq!(again.status, world.observed.service.status);
}

#[test]
fn the_mark_is_written_before_the_service_moves_and_the_old_revision_goes_last() {
    let mut world = World::new(one());
    world.converge();
    world.change(two());
    let start = world.plan();
    assert_eq!(
        verbs(&start),
        ["revision", "deployment", "scale", "budget", "scale"]
    );
    world.carry_out(start, usize::MAX);
    world.settle_pods();
    let promotion = world.plan();
    assert_eq!(verbs(&promotion), ["mark", "service"]);
    world.carry_out(promotion, usize::MAX);
    assert_eq!(world.plan().requeue, Some(step::SETTLE));
    // The second mark is a millisecond after the first, which was made at the same time here.
    let later = step::SETTLE + Duration::from_millis(1);
    world.now = world.now.checked_add(later).expect("a time");
    assert_eq!(verbs(&world.plan()), ["delete", "delete"]);
}

#[test]
fn a_stop_after_any_write_leads_to_the_same_end() {
    stops_lead_to_the_same_end(World::new, &json!({}));
    let quick = json!({
        "steps": [{"weight": 50, "soak": "4s"}], "rollbackWindow": "1m",
        "analysis": {"minRequests": 50, "settle": "10s"},
    });
    stops_lead_to_the_same_end(World::behind_routers, &quick);
}

fn stops_lead_to_the_same_end(make: fn(Value) -> World, rollout: &Value) {
    let with = |mut spec: Value| {
        spec["rollout"] = rollout.clone();
        spec
    };
    let run = |stops: &[usize]| {
        let mut world = make(with(one()));
        for (change, stop) in [None, Some(with(two())), Some(with(one()))]
            .into_iter()
            .zip(stops)
        {
            if let Some(spec) = change {
                world.change(spec);
            }
            let plan = world.plan();
            world.carry_out(plan, *stop);
            world.settle_pods();
            let plan = world.plan();
            world.carry_out(plan, *stop);
            world.converge();
        }
        world.end_state()
    };
    let whole = run(&[usize::MAX; 3]);
    for a in 0..7 {
        for b in 0..7 {
            let c = (a + b) % 7;
            assert_eq!(run(&[a, b, c]), whole, "stops after {a}, {b}, {c} writes");
        }
    }
}

#[test]
fn a_lost_status_comes_back_as_it_was() {
    let mut world = World::new(one());
    world.converge();
    world.change(two());
    world.converge();
    let before = world.end_state();
    world.observed.service.status = None;
    world.converge();
    assert_eq!(world.end_state(), before);
}

#[test]
fn a_deleted_record_of_the_serving_revision_comes_back_without_a_restart() {
    let mut world = World::new(one());
    world.converge();
    let before = world.observed.deployments.clone();
    world.observed.revisions.clear();
    let images = BTreeMap::from([(Provider::CPU, "cpu:2".into())]);
    let plan = plan(
        &world.observed,
        &Defaults {
            images,
            ..Defaults::default()
        },
        world.now,
    );
    assert_eq!(verbs(&plan), ["revision", "mark"]);
    assert_eq!(world.observed.deployments, before);
    world.carry_out(plan, usize::MAX);
    world.change(two());
    world.converge();
    let left: Vec<_> = world
        .observed
        .deployments
        .iter()
        .map(|d| &d.metadata.name)
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn new_defaults_change_no_live_revision() {
    let mut world = World::new(one());
    world.converge();
    let images = BTreeMap::from([(Provider::CPU, "cpu:2".into())]);
    let defaults = Defaults {
        images,
        image_pull_policy: Some("Always".into()),
        router: None,
    };
    assert_eq!(plan(&world.observed, &defaults, world.now).writes, []);
}

#[test]
fn an_edited_object_is_set_back_with_an_event_and_nothing_else_is_touched() {
    let mut world = World::new(one());
    world.converge();
    let spec = world.observed.deployments[0].spec.as_mut().expect("a spec");
    let pod = spec.template.spec.as_mut().expect("a pod");
    pod.containers[0].image = Some("edited".into());
    let plan = world.plan();
    assert_eq!(verbs(&plan), ["deployment"]);
    assert_eq!(plan.notices[0].reason, "DriftRepaired");
    assert!(
        plan.notices[0].message.contains("containers[server].image"),
        "{:?}",
        plan.notices
    );
}

#[test]
fn a_foreign_scale_is_taken_back() {
    let mut world = World::new(one());
    world.converge();
    let deployment = &mut world.observed.deployments[0];
    deployment.spec.as_mut().expect("a spec").replicas = Some(5);
    deployment
        .metadata
        .managed_fields
        .as_mut()
        .expect("managers")
        .push(read(json!({
            "manager": "kubectl", "operation": "Update", "subresource": "scale",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        })));
    let plan = world.plan();
    assert_eq!(verbs(&plan), ["scale"]);
    assert_eq!(plan.notices[0].reason, "ScaleReverted");
    assert!(
        plan.notices[0].message.starts_with("kubectl scaled"),
        "{:?}",
        plan.notices
    );
}

#[test]
fn what_is_not_ours_is_left_alone_and_named() {
    for kind in [
        "Service",
        "Deployment",
        "ControllerRevision",
        "PodDisruptionBudget",
    ] {
        let mut world = World::new(one());
        world.converge();
        let foreign = |meta: &mut ObjectMeta| {
            meta.owner_references.as_mut().expect("owners")[0].uid = "another".into();
        };
        let o = &mut world.observed;
        match kind {
            "Service" => foreign(&mut o.services[0].metadata),
            "Deployment" => foreign(&mut o.deployments[0].metadata),
            "ControllerRevision" => foreign(&mut o.revisions[0].metadata),
            _ => foreign(&mut o.budgets[0].metadata),
        }
        let plan = world.plan();
        assert_eq!(plan.writes, [], "{kind}");
        let status = plan.status.expect("a status");
        assert_eq!(status.conditions[0].reason, "NameCollision");
        assert!(
            status.conditions[0]
                .message
                .starts_with(&format!("a {kind} named "))
        );
        assert!(status.conditions.iter().any(|c| c.type_ == "Stalled"));
        // What is still ours is looked after.
        let o = &mut world.observed;
        if kind == "Service" {
            o.budgets.clear();
        } else {
            o.services[0].spec.as_mut().expect("a spec").selector = None;
        }
        let plan = world.plan();
        let object = plan.writes.iter().map(|write| match write {
            Write::Apply { object, .. } => Some(object),
            _ => None,
        });
        let expected = |object: &Object| match object {
            Object::DisruptionBudget(_) => kind == "Service",
            Object::Service(_) => kind != "Service",
            _ => false,
        };
        let objects: Option<Vec<&Object>> = object.collect();
        assert!(
            objects.is_some_and(|objects| objects.len() == 1 && expected(objects[0])),
            "{kind}: {:?}",
            plan.writes
        );
    }
}

#[test]
fn the_first_pods_digest_is_recorded_and_a_pod_that_fetched_another_is_replaced() {
    let mut world =
        World::new(json!({"model": {"uri": "https://a/1.onnx"}, "scaling": {"minReplicas": 2}}));
    world.converge();
    let pods: Vec<String> = world
        .observed
        .pods
        .iter()
        .filter_map(|p| p.metadata.uid.clone())
        .collect();
    for (uid, digest) in pods.iter().zip(["sha256:aa", "sha256:bb"]) {
        let report = crate::observed::Report {
            digest: digest.into(),
            ..crate::observed::Report::default()
        };
        world.observed.reports.insert(uid.clone(), report);
    }
    let plan = world.plan();
    assert_eq!(verbs(&plan), ["digest", "delete"]);
    assert_eq!(plan.notices[0].reason, "DigestMismatch");
    assert_eq!(
        plan.status.expect("a status").revisions[0]
            .digest
            .as_deref(),
        Some("sha256:aa")
    );
}

#[test]
fn records_past_the_history_are_removed_oldest_first() {
    let mut world = World::new(one());
    for i in 0..9 {
        world.change(json!({"model": {"uri": format!("https://a/{i}.onnx")}}));
        world.converge();
    }
    let mut numbers: Vec<i64> = world
        .observed
        .revisions
        .iter()
        .map(|r| r.revision)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [4, 5, 6, 7, 8, 9]);
}

#[test]
fn an_invalid_spec_says_so_and_leaves_everything_as_it_is() {
    let mut world = World::new(one());
    world.converge();
    world.change(json!({"model": {"uri": "https://a/1.onnx"}, "server": {"accelerator": {"resource": "nvidia.com/gpu"}}}));
    let plan = world.plan();
    assert_eq!(plan.writes, []);
    let status = plan.status.expect("a status");
    let find = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind);
    assert_eq!(
        find("Ready").map(|c| c.reason.as_str()),
        Some("InvalidSpec")
    );
    assert_eq!(find("Available").map(|c| c.status.as_str()), Some("True"));
    assert_eq!(status.observed_generation, Some(2));
}

/// What no image serves.
fn refused() -> Value {
    json!({"model": {"uri": "https://a/1.onnx"}, "server": {"accelerator": {"resource": "nvidia.com/gpu"}}})
}

#[test]
fn while_a_spec_is_refused_the_revision_that_serves_is_looked_after() {
    let mut world = World::new(one());
    world.converge();
    let before = world.observed.clone();
    world.change(refused());
    let plan = world.plan();
    assert_eq!(told(&plan), ["InvalidSpec"]);
    world.carry_out(plan, usize::MAX);
    let name = before.deployments[0].metadata.name.clone();

    let o = &mut world.observed;
    o.services[0].spec.as_mut().expect("a spec").selector = None;
    o.budgets.clear();
    let pod = &mut o.deployments[0].spec.as_mut().expect("a spec").template;
    pod.spec.as_mut().expect("a pod").containers[0].image = Some("theirs".into());
    o.deployments[0].spec.as_mut().expect("a spec").replicas = Some(7);
    let plan = world.plan();
    assert_eq!(told(&plan), ["DriftRepaired", "Scaled", "DriftRepaired"]);
    world.carry_out(plan, usize::MAX);
    assert_eq!(world.plan().writes, []);
    let o = &world.observed;
    assert_eq!(o.deployments[0].metadata.name, name);
    assert_eq!(o.deployments[0].spec, before.deployments[0].spec);
    assert_eq!(o.services[0].spec, before.services[0].spec);
    assert_eq!(o.budgets[0].spec, before.budgets[0].spec);
    assert_eq!(o.revisions.len(), 1, "nothing is made for what is refused");

    // Its pods are told of, and it stops with the service.
    world.observed.pods.clear();
    let status = world.plan().status.expect("a status");
    let of = |status: &InferenceServiceStatus, kind: &str| {
        let found = status.conditions.iter().find(|c| c.type_ == kind);
        found.map(|c| (c.status.clone(), c.reason.clone()))
    };
    let expected = |status: &str, reason: &str| Some((status.into(), reason.into()));
    assert_eq!(of(&status, "Ready"), expected("False", "InvalidSpec"));
    assert_eq!(of(&status, "Available"), expected("False", "NoPodsReady"));
    assert_eq!(status.ready_replicas, Some(0));
    let mut suspended = refused();
    suspended["suspend"] = json!(true);
    world.change(suspended);
    let plan = world.plan();
    assert!(
        matches!(&plan.writes[..], [Write::Scale { replicas: 0, .. }]),
        "{:?}",
        plan.writes
    );
}

#[test]
fn a_candidate_stays_as_it_is_while_the_next_spec_is_refused() {
    let mut world = World::new(one());
    world.converge();
    world.change(two());
    let plan = world.plan();
    world.carry_out(plan, usize::MAX);
    let deployments = world.observed.deployments.clone();
    assert_eq!(deployments.len(), 2, "the stable one and a candidate");
    world.now = world.now.checked_add(step::SETTLE).expect("a time");
    let mut next = refused();
    next["scaling"] = json!({"minReplicas": 2});
    world.change(next);
    let plan = world.plan();
    assert_eq!(plan.writes, []);
    let status = plan.status.expect("a status");
    assert_eq!(status.revisions.len(), 2, "{:?}", status.revisions);
    assert_eq!(world.observed.deployments, deployments);
}

#[test]
fn an_object_that_is_being_deleted_is_left_to_garbage_collection() {
    let mut world = World::new(one());
    world.observed.service.metadata.deletion_timestamp = Some(read(json!("2026-01-01T00:00:00Z")));
    assert_eq!(world.plan(), Plan::default());
}
