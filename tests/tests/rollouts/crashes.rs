//! The operator is killed, or its writes go wrong, anywhere in a rollout: the end is that of a rollout that nobody
//! disturbed.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use ortolan_tests::{
    snapshot::snapshot,
    tap::{Fault, Freeze},
};

use super::*;

/// How many rollouts are played at once.
const AT_ONCE: usize = 4;
/// Writes of the operator from the change to the end are fewer, and more than half of this.
const WRITES: usize = 40;

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

/// What happens to the operator.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// It is killed at its n-th write, and another one starts.
    Killed(usize, Freeze),
    /// Its n-th write goes wrong.
    Write(usize, Fault),
}

/// A rollout with this trouble in it: whether the trouble came before the end, and the end.
async fn troubled(w: Arc<World>, trouble: Trouble) -> (bool, String) {
    let mut play = Play::start(&w).await;
    play.first(short("a")).await;
    play.kill().await;
    let new = play.change(short("b")).await;
    let tap = match trouble {
        Trouble::None => Tap::default(),
        Trouble::Killed(n, freeze) => Tap::freezing(n, freeze),
        Trouble::Write(n, fault) => Tap::faulty(n, fault),
    };
    play.operate(tap.clone(), None);
    tokio::select! {
        () = tap.frozen() => {
            play.kill().await;
            play.operate(Tap::default(), None);
            play.until_promoted(&new).await;
        }
        _ = play.until_promoted(&new) => {}
    }
    assert_eq!(play.shares(&new), [0, 10, 50, 100], "{trouble:?}");
    for (reason, words) in [("RolloutStarted", &*new), ("Promoted", &*new)] {
        let told = play.told(reason, words).await;
        // A write of the mark or of the status that was made and not answered is decided again.
        assert!(told <= 2, "{trouble:?}: {reason} was told {told} times");
    }
    let came = match trouble {
        Trouble::None => false,
        Trouble::Killed(..) => tap.is_frozen(),
        Trouble::Write(n, _) => tap.writes().len() > n,
    };
    let mut last = snapshot(&w).await;
    w.until("nothing changes any more", async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = std::mem::replace(&mut last, snapshot(&w).await);
        if before == last {
            Ok(())
        } else {
            Err("it still changes".into())
        }
    })
    .await;
    (came, last)
}

/// Numbers that look like chance and are the same each time: splitmix64.
fn sample(seed: u64, below: usize) -> usize {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % below as u64).expect("it is below a usize")
}

/// All of it with ORTOLAN_ROLLOUT_FAULTS=all; a sample otherwise.
fn troubles() -> Vec<Trouble> {
    let each = |n| {
        [
            Trouble::Killed(n, Freeze::Before),
            Trouble::Killed(n, Freeze::After),
            Trouble::Write(n, Fault::Dropped),
            Trouble::Write(n, Fault::Unanswered),
            Trouble::Write(n, Fault::Late),
            Trouble::Write(n, Fault::Twice),
        ]
    };
    let all: Vec<Trouble> = (0..WRITES).flat_map(each).collect();
    if std::env::var("ORTOLAN_ROLLOUT_FAULTS").is_ok_and(|which| which == "all") {
        return all;
    }
    // One of each kind, at different writes.
    (0..6)
        .map(|n| all[6 * sample(n as u64 + 1, WRITES / 2) + n % 6])
        .collect()
}

#[test]
fn whatever_happens_to_a_write_the_end_is_the_same() {
    on_stage(async |w| {
        let undisturbed = troubled(Arc::new(w.beside("none").await), Trouble::None);
        let runs = async {
            let mut runs = Vec::new();
            for (n, trouble) in troubles().into_iter().enumerate() {
                runs.push((Arc::new(w.beside(&format!("t{n}")).await), trouble));
            }
            let runs = stream::iter(runs)
                .map(async |(world, trouble)| (trouble, troubled(world, trouble).await))
                .buffered(AT_ONCE);
            runs.collect::<Vec<_>>().await
        };
        let ((_, undisturbed), runs) = tokio::join!(undisturbed, runs);
        let (mut came, all) = (0, runs.len());
        for (trouble, (did, end)) in runs {
            came += usize::from(did);
            let lines = |a: &str, b: &str| -> Vec<String> {
                let b: BTreeSet<&str> = b.lines().collect();
                a.lines()
                    .filter(|line| !b.contains(line))
                    .map(str::to_owned)
                    .collect()
            };
            let (wrong, missing) = (lines(&end, &undisturbed), lines(&undisturbed, &end));
            assert!(
                end == undisturbed,
                "{trouble:?}: there is {wrong:#?} in place of {missing:#?}"
            );
        }
        println!("{came} of {all} troubles came before the end");
        assert!(came >= 4, "only {came} troubles came before the end");
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
