//! The operator is killed at every stage of a rollout, or comes back without routers in the middle of one.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;

use super::*;

type Place = (RolloutPhase, Option<String>, Option<i32>);

fn place(status: &InferenceServiceStatus) -> Option<Place> {
    let rollout = status.rollout.as_ref()?;
    Some((rollout.phase, rollout.stage.clone(), rollout.step))
}

impl Play {
    /// Kills the operator at each place that the rollout comes to, once, and starts another one, until `end`. Answers
    /// where it was killed.
    async fn kill_everywhere(&mut self, end: RolloutPhase) -> Vec<Place> {
        let mut killed: Vec<Place> = Vec::new();
        let w = Arc::clone(&self.w);
        loop {
            let place = w
                .until("the rollout moves on", async || {
                    let service: InferenceService = w.get("m").await;
                    let place = service.status.as_ref().and_then(place);
                    let place = place.filter(|place| !killed.contains(place));
                    let moved = place
                        .filter(|(phase, ..)| *phase != RolloutPhase::Stable || !killed.is_empty());
                    moved.ok_or_else(|| format!("its status is {:#?}", service.status))
                })
                .await;
            if place.0 == end {
                return killed;
            }
            self.kill().await;
            killed.push(place);
            self.operate(Tap::default(), None);
        }
    }
}

#[test]
fn an_operator_that_is_killed_at_every_stage_promotes_all_the_same() {
    on_stage(async |w| {
        let mut play = Play::start(&w).await;
        let old = play.first(short("a")).await;
        let mut wanted = short("b");
        wanted["rollout"]["approval"] = json!("Manual");
        let new = play.change(wanted).await;
        let places = play.kill_everywhere(RolloutPhase::AwaitingApproval).await;
        let promote = format!("promote {new} 1");
        play.command(&promote).await;
        let further = play.kill_everywhere(RolloutPhase::Stable).await;
        play.until_promoted(&new).await;

        let phases: BTreeSet<String> = places
            .iter()
            .chain(&further)
            .map(|(phase, stage, _)| format!("{phase:?} {}", stage.as_deref().unwrap_or("")))
            .collect();
        for seen in [
            "Preparing ",
            "Step Shift",
            "Step Soak",
            "AwaitingApproval ",
            "Promoting Settle",
        ] {
            assert!(phases.contains(seen), "{phases:?}");
        }
        assert_eq!(play.shares(&new), [0, 10, 50, 100]);
        assert!(
            play.shares(&old).ends_with(&[100, 90, 50, 0]),
            "{:?}",
            play.shares(&old)
        );
        assert_eq!(
            play.told("CommandRefused", "").await,
            0,
            "it is obeyed once"
        );
        // One that was killed may not have told; nobody tells again.
        for (reason, words) in [
            ("RolloutStarted", &*new),
            ("Promoted", &*new),
            ("AwaitingApproval", ""),
        ] {
            let told = play.told(reason, words).await;
            assert!(told <= 1, "{reason} was told {told} times");
        }
    });
}

#[test]
fn an_operator_that_is_killed_at_every_stage_takes_a_bad_candidate_back_all_the_same() {
    on_stage(async |w| {
        let mut play = Play::start(&w).await;
        let old = play.first(short("a")).await;
        let new = named(&short("b"));
        play.routers.conduct(&new, HOPELESS);
        play.change(short("b")).await;
        let places = play.kill_everywhere(RolloutPhase::Failed).await;
        let failed = play.until_failed(&new, &old).await;
        assert_eq!(rollout(&failed).reason.as_deref(), Some("CandidateFails"));
        assert_eq!(marked(&w).await, old);
        for stage in ["ShiftBack", "Drain"] {
            let is = |(phase, at, _): &Place| {
                *phase == RolloutPhase::Aborting && at.as_deref() == Some(stage)
            };
            assert!(places.iter().any(is), "{places:?}");
        }
        let told = play.told("CandidateFails", &new).await;
        assert!(told <= 1, "told {told} times");
        assert!(!play.shares(&new).contains(&100));
    });
}

/// What the Service in front of the pods is: its type, and the revision that it selects.
async fn front(w: &World) -> (String, Option<String>) {
    let service: Service = w.get("m").await;
    let spec = service.spec.unwrap_or_default();
    let revision = spec.selector.unwrap_or_default().remove(names::REVISION);
    (spec.type_.unwrap_or_default(), revision)
}

#[test]
fn an_operator_without_routers_in_the_middle_stops_a_canary_that_the_spec_asks_for() {
    on_stage(async |w| {
        let mut play = Play::start(&w).await;
        let old = play.first(short("a")).await;
        let mut wanted = short("b");
        wanted["rollout"]["steps"][0]["soak"] = json!("8s");
        let new = play.change(wanted).await;
        let before = rollout(&play.until_weight(&new, 10).await);
        play.operator.take().expect("an operator").stop().await;
        play.operator = Some(Operator::start(&w));
        let refused = w.until_ready_is("m", "False", "InvalidSpec").await;
        let message = &condition(&refused, "Ready").expect("a condition").message;
        assert!(message.contains("needs routers"), "{message}");
        assert_eq!(
            rollout(&refused).candidate,
            before.candidate,
            "what is known is kept"
        );
        w.until("the stable revision gets everything", async || {
            let front = front(&w).await;
            let all = ("ClusterIP".to_owned(), Some(old.clone()));
            if front == all {
                Ok(())
            } else {
                Err(format!("{front:?}"))
            }
        })
        .await;

        play.kill().await;
        play.operate(Tap::default(), None);
        play.until_promoted(&new).await;
        assert_eq!(front(&w).await, ("ExternalName".to_owned(), None));
        assert_eq!(play.shares(&new), [0, 10, 50, 100]);
    });
}

#[test]
fn an_operator_without_routers_in_the_middle_replaces_at_once_where_the_spec_asks_for_no_canary() {
    on_stage(async |w| {
        let mut play = Play::start(&w).await;
        play.first(spec("a")).await;
        let new = play.change(spec("b")).await;
        play.until_weight(&new, 5).await;
        play.operator.take().expect("an operator").stop().await;
        play.operator = Some(Operator::start(&w));
        let done = w.until_ready_is("m", "True", "Serving").await;
        let status = done.status.expect("a status");
        assert_eq!(
            (weights(&status), status.rollout),
            (vec![(new.clone(), 100)], None)
        );
        assert_eq!(marked(&w).await, new);
        assert_eq!(front(&w).await, ("ClusterIP".to_owned(), Some(new.clone())));

        play.kill().await;
        play.operate(Tap::default(), None);
        play.until_promoted(&new).await;
        assert_eq!(front(&w).await, ("ExternalName".to_owned(), None));
    });
}
