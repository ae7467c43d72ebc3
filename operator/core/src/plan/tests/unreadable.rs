//! The operator was downgraded in the middle of a rollout, and cannot read what the newer version wrote.

use std::collections::BTreeSet;

use ortolan_crds::RolloutStatus;

use super::*;

/// What the newer version wrote that this one does not know.
#[derive(Clone, Copy, Debug)]
enum Newer {
    /// A phase in what it remembers.
    Phase,
    /// A phase in the status, too.
    PublicPhase,
    /// Something else than JSON.
    Form,
}

const ALL: [Newer; 3] = [Newer::Phase, Newer::PublicPhase, Newer::Form];

fn status(world: &World) -> InferenceServiceStatus {
    world.observed.service.status.clone().expect("a status")
}

fn rollout(world: &World) -> RolloutStatus {
    status(world).rollout.expect("a rollout")
}

/// As if the newer version had written it; answers what this one had written.
fn written_by(newer: Newer, world: &mut World) -> RolloutStatus {
    let ours = rollout(world);
    let text = ours.state.clone().expect("a state");
    let mut state: Value = read(text.parse().expect("JSON"));
    state["phase"] = json!({"bargaining": {"round": 2}});
    let mut theirs = status(world);
    let rollout = theirs.rollout.as_mut().expect("a rollout");
    rollout.state = Some(match newer {
        Newer::Phase | Newer::PublicPhase => state.to_string(),
        Newer::Form => "oAJhYQ==".into(),
    });
    if matches!(newer, Newer::PublicPhase) {
        // As it comes from the API server.
        let mut value = serde_json::to_value(&theirs).expect("JSON");
        value["rollout"]["phase"] = json!("Bargaining");
        value["rollout"]["offers"] = json!([1, 2]);
        theirs = read(value);
    }
    world.observed.service.status = Some(theirs);
    ours
}

/// A change from `one` to `wanted` begins.
fn changed(wanted: &Value, fails: bool) -> World {
    let mut world = World::behind_routers(one());
    world.converge();
    if fails {
        world.differ = 100;
    }
    world.change(wanted.clone());
    world
}

fn shadowed() -> Value {
    let mut spec = two();
    let compare = json!({"kind": "Regression", "tolerance": 0.05});
    spec["rollout"] = json!({"shadow": {"percent": 20, "compare": compare}});
    spec
}

fn manual() -> Value {
    let mut spec = two();
    spec["rollout"] = json!({"approval": "Manual"});
    spec
}

/// The world when it first comes to each phase and stage with a candidate, and the name of it.
fn places(wanted: &Value, fails: bool) -> Vec<(String, World)> {
    let mut world = changed(wanted, fails);
    let mut seen = BTreeSet::new();
    let mut places = Vec::new();
    for _ in 1..2_000 {
        let is_over = world.look();
        let rollout = rollout(&world);
        let stage = rollout.stage.unwrap_or_default();
        let place = format!("{:?} {stage}", rollout.phase).trim_end().to_owned();
        if rollout.candidate.is_some() && seen.insert(place.clone()) {
            places.push((place.clone(), world.clone()));
        }
        // While approval is waited for requests are counted without end.
        if is_over || place == "AwaitingApproval" {
            return places;
        }
    }
    panic!(
        "no end: {:?}",
        places.iter().map(|(place, _)| place).collect::<Vec<_>>()
    );
}

fn ready(status: &InferenceServiceStatus) -> (&str, &str) {
    (&status.conditions[0].reason, &status.conditions[0].message)
}

#[test]
fn in_every_phase_weights_and_pods_stay_until_a_version_comes_that_can_read_it() {
    let mut phases = BTreeSet::new();
    for (wanted, fails) in [(two(), false), (shadowed(), true), (manual(), false)] {
        let undisturbed = (wanted != manual()).then(|| {
            let mut world = changed(&wanted, fails);
            world.converge();
            end(&world)
        });
        for (place, before) in places(&wanted, fails) {
            for newer in ALL {
                let mut world = before.clone();
                let ours = written_by(newer, &mut world);
                let theirs = status(&world);
                look_at_what_stays(&world, &format!("{place} {newer:?}"));
                for _ in 0..3 {
                    world.look();
                }
                assert_eq!(told(&world.plan()), Vec::<&str>::new(), "{place}: once");
                assert_eq!(status(&world).traffic, theirs.traffic, "{place}");
                if !matches!(newer, Newer::PublicPhase) {
                    continue;
                }
                let mut again = status(&world);
                again.rollout = Some(ours);
                world.observed.service.status = Some(again);
                match &undisturbed {
                    Some(undisturbed) => {
                        world.converge();
                        assert_eq!(&end(&world), undisturbed, "{place}");
                    }
                    None => {
                        world.look();
                        let now = status(&world);
                        assert_ne!(ready(&now).0, "UnreadableRollout", "{place}");
                    }
                }
            }
            phases.insert(place);
        }
    }
    for phase in [
        "Preparing",
        "Shadowing",
        "Step Shift",
        "Step Soak",
        "AwaitingApproval",
        "Promoting Settle",
        "Failed",
    ] {
        assert!(phases.contains(phase), "{phases:?}");
    }
}

/// What is left at the end but for what was counted.
fn end(world: &World) -> Value {
    let mut end = world.end_state();
    end["status"]["rollout"]["evidence"] = Value::Null;
    end
}

/// Nothing is done to the candidate, nothing is deleted or marked, and the status says why.
fn look_at_what_stays(world: &World, at: &str) {
    let theirs = status(world);
    let candidate = theirs.rollout.clone().and_then(|rollout| rollout.candidate);
    let candidate = candidate.expect("a candidate");
    let plan = world.plan();
    for write in &plan.writes {
        let is_of_it = format!("{write:?}").contains(&candidate);
        let is_final = matches!(write, Write::Delete { .. } | Write::MarkStable { .. });
        assert!(
            !is_of_it && !is_final,
            "{at}, candidate {candidate}: {write:?}"
        );
    }
    assert_eq!(told(&plan), ["UnreadableRollout"], "{at}");
    let now = plan.status.expect("a status");
    assert_eq!(
        (&now.traffic, &now.rollout),
        (&theirs.traffic, &theirs.rollout),
        "{at}"
    );
    let (reason, message) = ready(&now);
    assert_eq!(reason, "UnreadableRollout", "{at}");
    assert!(message.contains(&candidate), "{message}");
    assert!(now.conditions.iter().any(|c| c.type_ == "Stalled"), "{at}");
}

#[test]
fn another_spec_begins_anew_from_the_stable_revision_and_says_what_was_forgotten() {
    let third = json!({"model": {"uri": "https://a/3.onnx"}, "scaling": {"minReplicas": 2}});
    for (place, before) in places(&two(), false) {
        let was = rollout(&before);
        for newer in ALL {
            let mut world = before.clone();
            written_by(newer, &mut world);
            world.change(third.clone());
            let plan = world.plan();
            let at = format!("{place} {newer:?}");
            assert!(told(&plan).contains(&"UnreadableRollout"), "{at}");
            let now = plan.status.expect("a status");
            let share = &now.traffic[0];
            assert_eq!(
                (now.traffic.len(), Some(&share.revision), share.weight),
                (1, was.stable.as_ref(), 100),
                "{at}"
            );
            let begun = now.rollout.expect("a rollout");
            assert!(begun.generation > was.generation, "{at}: routers saw that");
        }
        if place != "Step Soak" {
            continue;
        }
        let mut world = before;
        written_by(Newer::Phase, &mut world);
        world.change(third.clone());
        world.converge();
        let now = status(&world);
        let end = now.rollout.expect("a rollout");
        assert_eq!(end.phase, ortolan_crds::RolloutPhase::Stable);
        assert_eq!(
            end.stable.as_ref(),
            Some(&now.traffic[0].revision),
            "{place}"
        );
        assert_eq!(world.observed.deployments.len(), 1, "{place}");
    }
}

#[test]
fn the_old_spec_takes_the_candidate_back_at_once() {
    for (place, mut world) in places(&two(), false) {
        let stable = rollout(&world).stable;
        written_by(Newer::Phase, &mut world);
        world.change(one());
        assert!(
            told(&world.plan()).contains(&"UnreadableRollout"),
            "{place}"
        );
        for _ in 0..3 {
            world.look();
        }
        let now = status(&world);
        assert_eq!(
            (
                Some(&now.traffic[0].revision),
                now.traffic[0].weight,
                ready(&now).0
            ),
            (stable.as_ref(), 100, "Serving"),
            "{place}"
        );
    }
}

#[test]
fn a_state_that_was_removed_by_hand_begins_anew_and_fields_of_a_newer_version_are_no_hindrance() {
    let mut undisturbed = changed(&two(), false);
    undisturbed.converge();
    for (place, before) in places(&two(), false) {
        if !["Preparing", "Step Soak", "Promoting Settle"].contains(&&*place) {
            continue;
        }
        let mut removed = before.clone();
        written_by(Newer::Phase, &mut removed);
        let mut extended = before;
        let of_it = |world: &mut World, change: fn(Option<String>) -> Option<String>| {
            let mut now = status(world);
            let rollout = now.rollout.as_mut().expect("a rollout");
            rollout.state = change(rollout.state.take());
            world.observed.service.status = Some(now);
        };
        of_it(&mut removed, |_| None);
        of_it(&mut extended, |state| {
            let mut state: Value = state.expect("a state").parse().expect("JSON");
            state["temper"] = json!({"calm": true});
            Some(state.to_string())
        });
        for mut world in [removed, extended] {
            assert!(
                !told(&world.plan()).contains(&"UnreadableRollout"),
                "{place}"
            );
            world.converge();
            assert_eq!(world.end_state(), undisturbed.end_state(), "{place}");
        }
    }
}

#[test]
fn recreate_does_not_wait_for_what_the_old_pods_were_never_asked() {
    let mut spec = one();
    spec["rollout"] = json!({"strategy": "Recreate"});
    let mut world = World::behind_routers(spec.clone());
    world.converge();
    // The operator was killed before the status described the first revision.
    let mut known = status(&world);
    for revision in &mut known.revisions {
        (revision.provider, revision.model) = (None, None);
    }
    world.observed.service.status = Some(known);
    world.observed.reports.clear();
    spec["model"]["uri"] = json!("https://a/2.onnx");
    world.change(spec);
    let begun = world.now;
    // The old pods end before they are asked.
    let plan = world.plan();
    world.carry_out(plan, usize::MAX);
    world.settle_pods();
    for _ in 0..200 {
        world.look();
        let now = rollout(&world);
        if now.phase == ortolan_crds::RolloutPhase::Stable {
            let took = world.now.duration_since(begun);
            // The signature is waited for as long as `analysis.deadline` says, an hour.
            assert!(took.as_secs() < 1800, "{took:?}");
            return;
        }
    }
    panic!("it waits: {:?}", rollout(&world));
}
