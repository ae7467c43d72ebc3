//! With routers before the pods.

use k8s_openapi::api::core::v1::ServiceSpec;
use ortolan_crds::RolloutPhase;
use ortolan_stats::{
    EXAMPLES, Example,
    example::{Difference, What},
};

use super::{examples::MOST, *};
use crate::{
    observed::{About, Report},
    rollout::routers::{RouterStats, Routers},
};

impl World {
    /// The routers follow the status, and send 50 requests by its shares; ready pods say what they serve.
    pub(super) fn play_routers(&mut self) {
        if self.router.is_none() {
            return;
        }
        let status = self.observed.service.status.clone().unwrap_or_default();
        let rollout = status.rollout.unwrap_or_default();
        let generation = rollout.generation;
        let generation = generation.and_then(|generation| u64::try_from(generation).ok());
        let mut router = self.observed.routers.routers.pop().unwrap_or(RouterStats {
            name: "router-a".into(),
            started: Timestamp::UNIX_EPOCH,
            generation,
            generations: BTreeMap::new(),
            examples: Vec::new(),
        });
        router.generation = generation;
        for traffic in &status.traffic {
            let counts = router
                .generations
                .entry(generation.unwrap_or(0))
                .or_default();
            let outcome = counts.entry(traffic.revision.clone()).or_default();
            outcome.requests += u64::from(traffic.weight.unsigned_abs()) / 2;
        }
        if let Some(shadow) = &rollout.shadow {
            let counts = router
                .generations
                .entry(generation.unwrap_or(0))
                .or_default();
            for revision in [&shadow.revision, &status.traffic[0].revision] {
                let outcome = counts.entry(revision.clone()).or_default();
                outcome.compared += u64::from(shadow.percent.unsigned_abs());
                if *revision == shadow.revision {
                    outcome.differed = outcome.compared * self.differ / 100;
                    let of_this = |one: &&Example| Some(one.generation) == generation;
                    let told = router.examples.iter().filter(of_this).count();
                    let more = usize::try_from(outcome.differed).expect("a few");
                    let stable = &status.traffic[0].revision;
                    for number in told..more.min(EXAMPLES) {
                        router.examples.push(example(
                            generation.unwrap_or(0),
                            [stable, revision],
                            number as u64,
                        ));
                    }
                }
            }
        }
        self.observed.routers = Routers {
            routers: vec![router],
            complete: true,
            followed: generation,
            recent: BTreeMap::new(),
        };
        let provider = ortolan_crds::ProviderStatus {
            requested: "CPU".into(),
            active: "CPU".into(),
        };
        let about = About {
            provider: Some(provider),
            ..About::default()
        };
        let pods = self.observed.pods.iter();
        let uids = pods.filter_map(|pod| pod.metadata.uid.clone());
        let report = Report {
            digest: format!("sha256:{}", "0".repeat(64)),
            about,
        };
        self.observed.reports = uids.map(|uid| (uid, report.clone())).collect();
    }
}

/// An example of answers that differ, one of many.
fn example(generation: u64, [stable, candidate]: [&str; 2], number: u64) -> Example {
    Example {
        at: Timestamp::from_second(1_800_000_000).expect("a time"),
        generation,
        stable: stable.into(),
        candidate: candidate.into(),
        difference: Difference::of(What::Number),
        inputs: Vec::new(),
        body_sha256: format!("{number:064x}"),
        body_bytes: 12,
        trace_id: None,
    }
}

/// The specs of the Services: that of the InferenceService, and those of the revisions by their names.
fn services(world: &World) -> (ServiceSpec, BTreeMap<String, ServiceSpec>) {
    let all = world.observed.services.iter().map(|service| {
        let name = service.metadata.name.clone().expect("a name");
        (name, service.spec.clone().expect("a spec"))
    });
    let mut revisions: BTreeMap<_, _> = all.collect();
    (revisions.remove("m").expect("the Service"), revisions)
}

fn deployments(world: &World) -> Vec<String> {
    let all = world.observed.deployments.iter();
    all.filter_map(|d| d.metadata.name.clone()).collect()
}

#[test]
fn the_service_is_an_alias_of_the_routers_and_each_revision_with_pods_has_one_without_an_address() {
    let mut world = World::behind_routers(one());
    let first = world.plan();
    assert_eq!(
        verbs(&first),
        [
            "revision",
            "deployment",
            "scale",
            "budget",
            "service",
            "service"
        ]
    );
    world.converge();
    world.change(two());
    world.converge();
    let (front, revisions) = services(&world);
    assert_eq!(front.type_.as_deref(), Some("ExternalName"));
    assert_eq!(front.external_name, world.router);
    assert_eq!(front.selector, None);
    let names: Vec<String> = revisions.keys().cloned().collect();
    assert_eq!(
        names,
        deployments(&world),
        "the old revision's went with it"
    );
    for (name, spec) in revisions {
        assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
        assert_eq!(spec.publish_not_ready_addresses, Some(true));
        assert_eq!(spec.selector.expect("a selector")[names::REVISION], name);
    }
}

/// What the status said on the way, each once: the reason, the phase, and the shares.
fn story(world: &mut World) -> Vec<(String, RolloutPhase, Vec<i32>)> {
    let mut story = Vec::new();
    for _ in 0..2_000 {
        let is_over = world.look();
        let status = world.observed.service.status.clone().expect("a status");
        let entry = (
            status.conditions[0].reason.clone(),
            status.rollout.expect("a rollout").phase,
            status.traffic.iter().map(|share| share.weight).collect(),
        );
        if story.last() != Some(&entry) {
            story.push(entry);
        }
        if is_over {
            return story;
        }
    }
    panic!("no end: {story:?}");
}

#[test]
fn a_new_revision_takes_over_in_steps_by_the_status_alone() {
    use RolloutPhase::{Preparing, Promoting, Stable, Step};
    let mut world = World::behind_routers(one());
    world.converge();
    let old = deployments(&world);
    world.change(two());
    let told = story(&mut world);
    let rolling = |phase, shares: &[i32]| ("RollingOut".to_owned(), phase, shares.to_vec());
    let expected = [
        rolling(Preparing, &[100]),
        rolling(Step, &[100]),
        rolling(Step, &[95, 5]),
        rolling(Step, &[75, 25]),
        rolling(Step, &[50, 50]),
        rolling(Promoting, &[50, 50]),
        rolling(Promoting, &[100]),
        ("Serving".to_owned(), Stable, vec![100]),
    ];
    assert_eq!(told, expected);
    let new = deployments(&world);
    assert_eq!(
        (old.len(), new.len()),
        (1, 1),
        "the old one went in the end"
    );
    assert_ne!(old, new);
    let names: Vec<_> = world
        .observed
        .services
        .iter()
        .map(|s| s.metadata.name.clone())
        .collect();
    assert!(names.contains(&Some(new[0].clone())) && !names.contains(&Some(old[0].clone())));
}

fn shadowed() -> Value {
    let mut spec = two();
    let compare = json!({"kind": "Regression", "tolerance": 0.05, "output": "price"});
    spec["rollout"] = json!({"shadow": {"percent": 20, "compare": compare}});
    spec
}

#[test]
fn answers_are_compared_before_the_first_step_and_until_all_of_the_traffic_moves() {
    use RolloutPhase::{Preparing, Promoting, Shadowing, Stable, Step};
    let mut world = World::behind_routers(one());
    world.converge();
    world.change(shadowed());
    let mut shadows = Vec::new();
    let mut phases = Vec::new();
    for _ in 0..2_000 {
        world.look();
        let status = world.observed.service.status.clone().expect("a status");
        let rollout = status.rollout.expect("a rollout");
        if phases.last() != Some(&rollout.phase) {
            phases.push(rollout.phase);
            shadows.push(rollout.shadow.clone());
        }
        if rollout.phase == Shadowing {
            let shadow = rollout.shadow.expect("copies");
            assert_eq!(Some(&shadow.revision), rollout.candidate.as_ref());
            assert_eq!(shadow.percent, 20);
            let written = serde_json::to_value(&shadow.compare).expect("JSON");
            let expected = json!({"kind": "Regression", "tolerance": 0.05, "output": "price"});
            assert_eq!(written, expected);
            let weights: Vec<i32> = status.traffic.iter().map(|share| share.weight).collect();
            assert_eq!(weights, [100], "no request of its own yet");
        }
        if rollout.phase == Stable && phases.len() > 1 {
            break;
        }
    }
    assert_eq!(phases, [Preparing, Shadowing, Step, Promoting, Stable]);
    let copies: Vec<bool> = shadows.iter().map(Option::is_some).collect();
    assert_eq!(copies, [false, true, true, false, false]);
}

#[test]
fn a_candidate_that_answers_otherwise_goes_back_before_a_user_sees_any_of_it() {
    let mut world = World::behind_routers(one());
    world.converge();
    world.differ = 100;
    world.change(shadowed());
    let told = story(&mut world);
    assert!(
        told.iter().all(|(_, _, shares)| *shares == [100]),
        "{told:?}"
    );
    let status = world.observed.service.status.clone().expect("a status");
    let rollout = status.rollout.expect("a rollout");
    assert_eq!(rollout.phase, RolloutPhase::Failed);
    assert_eq!(rollout.shadow, None);
    let message = &status.conditions[0].message;
    assert!(
        message.contains("answers that differ from the stable revision's"),
        "{message}"
    );
    let signals = rollout.evidence.expect("evidence").signals;
    let pairs = signals
        .iter()
        .find(|s| s.signal == "disagreement")
        .expect("it is tested");
    assert!(
        pairs.candidate.bad >= 33 && pairs.stable.bad == 0,
        "{pairs:?}"
    );
}

/// The lines of the ConfigMap of examples, and which revisions they are of.
fn kept_examples(world: &World) -> Option<([String; 2], Vec<String>)> {
    let mut maps = world.observed.config_maps.iter();
    let map = maps.find(|map| map.metadata.name.as_deref() == Some("m-examples"))?;
    assert!(world.observed.owns(&map.metadata));
    let data = map.data.clone().expect("data");
    let lines = data[names::EXAMPLES_KEY].lines().map(str::to_owned);
    let pair = [names::EXAMPLES_STABLE, names::EXAMPLES_CANDIDATE];
    Some((pair.map(|key| data[key].clone()), lines.collect()))
}

#[test]
fn examples_are_kept_for_people_until_the_next_rollout_and_no_more_than_twenty() {
    let named = |world: &World| {
        let status = world.observed.service.status.clone().expect("a status");
        let rollout = status.rollout.expect("a rollout");
        let name = rollout
            .evidence
            .clone()
            .and_then(|evidence| evidence.examples);
        (rollout, name)
    };
    let mut world = World::behind_routers(one());
    world.converge();
    world.differ = 100;
    world.change(shadowed());
    world.converge();
    let (failed, name) = named(&world);
    assert_eq!(failed.phase, RolloutPhase::Failed);
    assert_eq!(name.as_deref(), Some("m-examples"));
    let pair = [failed.stable, failed.candidate].map(|name| name.expect("a revision"));
    let (of, lines) = kept_examples(&world).expect("examples");
    assert_eq!((&of, lines.len()), (&pair, EXAMPLES), "the router's first");
    assert!(
        lines[0].contains(r#""difference":{"what":"Number"}"#),
        "{}",
        lines[0]
    );

    // The routers forget, the ConfigMap does not; and they may tell of more than is kept.
    world.observed.routers.routers[0].examples.clear();
    assert_eq!(world.plan().examples, None);
    let more = (10..90).map(|number| example(1, [&pair[0], &pair[1]], number));
    world.observed.routers.routers[0].examples = more.collect();
    let write = world.plan().examples.expect("there is news");
    world.write(write);
    let (_, all) = kept_examples(&world).expect("examples");
    assert_eq!(all.len(), MOST);
    assert_eq!(all[..EXAMPLES], lines, "those that were there stay");
    assert_eq!(world.plan().examples, None, "nothing is written twice");

    // The next candidate answers well: the examples of the one before go.
    world.differ = 0;
    let mut third = shadowed();
    third["model"]["uri"] = json!("https://a/third.onnx");
    world.change(third);
    for _ in 0..4 {
        world.look();
    }
    assert_eq!(kept_examples(&world), None);
    assert_eq!(named(&world).1, None);
}

#[test]
fn a_config_map_of_somebody_elses_under_the_name_of_the_examples_is_left_alone() {
    let mut world = World::behind_routers(one());
    world.converge();
    let foreign = json!({"metadata": {"name": "m-examples", "namespace": "ns", "uid": "f"}, "data": {"mine": "1"}});
    world.observed.config_maps.push(read(foreign.clone()));
    world.differ = 100;
    world.change(shadowed());
    world.converge();
    let status = world.observed.service.status.clone().expect("a status");
    let rollout = status.rollout.expect("a rollout");
    assert_eq!(rollout.phase, RolloutPhase::Failed, "it goes on without");
    assert_eq!(rollout.evidence.expect("evidence").examples, None);
    let mut maps = world.observed.config_maps.iter();
    let left = maps.find(|map| map.metadata.name.as_deref() == Some("m-examples"));
    let left = serde_json::to_value(left).expect("JSON");
    assert_eq!(left["data"], foreign["data"]);
}

#[test]
fn what_needs_routers_is_refused_without_them_and_the_old_revision_serves_on() {
    let mut world = World::new(one());
    world.converge();
    let mut spec = two();
    spec["rollout"] = json!({"strategy": "Canary"});
    world.change(spec);
    world.converge();
    let status = world.observed.service.status.clone().expect("a status");
    assert_eq!(status.conditions[0].reason, "InvalidSpec");
    assert_eq!(
        status.conditions[0].message,
        "rollout.strategy: Canary needs routers, and the platform has none: leave it out, or install the chart with router.enabled=true"
    );
    assert_eq!(deployments(&world).len(), 1);
}

#[test]
fn an_invalid_spec_in_the_middle_of_a_rollout_lets_it_stand_still() {
    let mut world = World::behind_routers(one());
    world.converge();
    world.change(two());
    for _ in 0..100 {
        world.look();
    }
    let before = world.observed.service.status.clone().expect("a status");
    assert_eq!(before.traffic.len(), 2, "{:?}", before.rollout);
    world.change(refused());
    world.converge();
    let after = world.observed.service.status.clone().expect("a status");
    assert_eq!(after.conditions[0].reason, "InvalidSpec");
    assert_eq!(
        (after.traffic, after.rollout),
        (before.traffic, before.rollout)
    );
    assert_eq!(deployments(&world).len(), 2);
}

/// Looks until the status looks like this.
fn until(world: &mut World, is: impl Fn(&ortolan_crds::RolloutStatus) -> bool) {
    for _ in 0..2_000 {
        world.look();
        let status = world.observed.service.status.clone();
        if status
            .and_then(|status| status.rollout)
            .is_some_and(|rollout| is(&rollout))
        {
            return;
        }
    }
    panic!("never: {:?}", world.observed.service.status);
}

#[test]
fn a_promotion_that_was_marked_and_then_given_up_leaves_the_mark_where_it_was() {
    let mut world = World::behind_routers(one());
    world.converge();
    let old = deployments(&world).remove(0);
    world.change(two());
    until(&mut world, |rollout| {
        rollout.stage.as_deref() == Some("Settle")
    });
    let marked = |world: &World| {
        let revisions = super::super::revisions(&world.observed).expect("records");
        revision::stable(&revisions)
            .expect("a mark")
            .name
            .to_string()
    };
    // The mark is written, the status is not.
    let mark = loop {
        world.play_routers();
        let plan = world.plan();
        let is_mark = |write: &Write| matches!(write, Write::MarkStable { .. });
        if let Some(mark) = plan.writes.iter().find(|write| is_mark(write)) {
            break mark.clone();
        }
        world.now = world
            .now
            .checked_add(Duration::from_secs(2))
            .expect("a time");
    };
    world.write(mark);
    assert_ne!(marked(&world), old);

    let abort = format!("abort {} 1", marked(&world));
    let command = BTreeMap::from([(names::COMMAND.to_owned(), abort)]);
    world.observed.service.metadata.annotations = Some(command);
    until(&mut world, |rollout| rollout.phase == RolloutPhase::Failed);
    assert_eq!(marked(&world), old);
    world.converge();
    assert_eq!(marked(&world), old);
}

#[test]
fn what_is_remembered_of_revisions_that_there_are_not_is_not_believed() {
    let mut other = World::behind_routers(one());
    other.converge();
    let mut world = World::behind_routers(two());
    world.observed.service.status = other.observed.service.status;
    world.converge();
    let status = world.observed.service.status.clone().expect("a status");
    assert_eq!(status.conditions[0].reason, "Serving");
    let stable = status.rollout.expect("a rollout").stable;
    assert_eq!(stable, deployments(&world).pop());
}

#[test]
fn routers_are_put_before_a_living_service_and_taken_away_again_without_a_moment_of_nothing() {
    let mut world = World::new(one());
    world.converge();
    world.router = Some("router.system.svc.cluster.local".into());
    let on = world.plan();
    let applied = |plan: &Plan| -> Vec<String> {
        let writes = plan.writes.iter().map(|write| match write {
            Write::Apply {
                object: Object::Service(s),
                ..
            } => s.metadata.name.clone().expect("a name"),
            Write::Delete { kind, name, .. } => format!("no {kind:?} {name}"),
            other => panic!("{other:?}"),
        });
        writes.collect()
    };
    let revision = deployments(&world).remove(0);
    assert_eq!(applied(&on), [revision.clone(), "m".to_owned()]);
    assert!(
        on.notices.is_empty(),
        "nobody changed anything by hand: {:?}",
        on.notices
    );
    world.carry_out(on, usize::MAX);
    assert!(world.plan().writes.is_empty());

    world.router = None;
    let off = world.plan();
    assert_eq!(
        applied(&off),
        ["m".to_owned(), format!("no Service {revision}")]
    );
    world.carry_out(off, usize::MAX);
    assert!(world.plan().writes.is_empty());
    assert_eq!(services(&world).0.type_.as_deref(), Some("ClusterIP"));
}

#[test]
fn a_service_of_somebody_elses_under_a_revisions_name_is_left_alone_and_told_of() {
    let mut world = World::behind_routers(one());
    world.converge();
    let revision = deployments(&world).remove(0);
    for service in &mut world.observed.services {
        if service.metadata.name.as_deref() == Some(&revision) {
            service.metadata.owner_references = None;
        }
    }
    let plan = world.plan();
    let written = plan.writes.iter().any(|write| {
        matches!(write, Write::Apply { object: Object::Service(s), .. } if s.metadata.name.as_deref() == Some(&revision))
    });
    assert!(!written, "{:?}", plan.writes);
    let status = plan.status.expect("a status");
    let ready = status
        .conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .expect("Ready");
    assert_eq!(ready.reason, "NameCollision");
    assert!(ready.message.contains(&revision), "{}", ready.message);
}

fn with(mut spec: Value, routing: Value) -> Value {
    spec["routing"] = routing;
    spec
}

/// The grace periods of the pods of all revisions.
fn graces(world: &World) -> Vec<Option<i64>> {
    let all = world.observed.deployments.iter();
    let pods = all.filter_map(|d| d.spec.as_ref()?.template.spec.as_ref());
    pods.map(|pod| pod.termination_grace_period_seconds)
        .collect()
}

#[test]
fn a_change_of_routing_writes_nothing_and_the_next_revision_has_time_for_its_requests() {
    let mut world = World::behind_routers(one());
    world.converge();
    let (old, status) = (deployments(&world), world.observed.service.status.clone());
    for routing in [
        json!({"timeout": "2m", "retries": 0, "holdTimeout": "1m"}),
        json!({"balancing": {"kind": "RoundRobin"}, "session": {"cookie": "sid"}}),
        json!({"timeout": "2m", "revisionHeader": "Allow", "stateful": true}),
    ] {
        world.change(with(one(), routing));
        let plan = world.plan();
        assert_eq!(plan.writes, []);
        let of = |status: &Option<InferenceServiceStatus>| {
            status
                .as_ref()
                .map(|s| (s.traffic.clone(), s.revisions.clone()))
        };
        assert_eq!(of(&plan.status), of(&status));
    }
    assert_eq!((deployments(&world), graces(&world)), (old, vec![Some(45)]));
    world.change(with(two(), json!({"timeout": "2m"})));
    story(&mut world);
    assert_eq!(graces(&world), [Some(135)]);
}

#[test]
fn routing_without_routers_is_refused_and_the_revision_serves_on() {
    let mut world = World::new(one());
    world.converge();
    world.change(with(one(), json!({"session": {"cookie": "sid"}})));
    world.converge();
    let status = world.observed.service.status.clone().expect("a status");
    let ready = &status.conditions[0];
    assert_eq!((&*ready.status, &*ready.reason), ("False", "InvalidSpec"));
    assert!(
        ready.message.starts_with("routing.session needs routers"),
        "{}",
        ready.message
    );
    assert_eq!(
        (deployments(&world).len(), status.ready_replicas),
        (1, Some(1))
    );
}
