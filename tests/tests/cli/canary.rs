//! The verbs of `ortolan rollout` and the operator's own rollout, which obeys them; and what Argo CD makes of each state on the way.
//! No router runs here, so a candidate comes as far as `Preparing`: the end-to-end tests go on from there.

use ortolan_crds::{InferenceService, RolloutPhase};
use ortolan_tests::{
    Cluster, Fate, Operator, World, argo,
    kstatus::{Kstatus, kstatus},
    tap::Tap,
    world::{definition_stays, is_observed, spec, world},
};
use serde_json::json;

use super::{ends, refused};
use crate::lifecycle::revision_of;

async fn until(w: &World, phase: RolloutPhase) -> InferenceService {
    w.until_service(&format!("the rollout is at {phase:?}"), "cats", |service| {
        let rollout = service
            .status
            .as_ref()
            .and_then(|status| status.rollout.as_ref());
        is_observed(service) && rollout.is_some_and(|rollout| rollout.phase == phase)
    })
    .await
}

async fn is_seen(w: &World, argo: &str, flux: Kstatus) {
    let service: InferenceService = w.get("cats").await;
    let health = argo::health(&service).expect("the script runs");
    assert_eq!(
        (health.status.as_str(), kstatus(&service)),
        (argo, flux),
        "{}",
        health.message
    );
}

#[test]
fn the_operator_obeys_the_commands_and_each_state_has_its_exit_code_and_its_health() {
    let _undisturbed = definition_stays();
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Ready);
        let router = format!("--router=routers.{}.svc.cluster.local", w.namespace);
        let _operator = Operator::with(&w, &[&router], Tap::default());
        w.create("cats", spec("a")).await;
        let first = revision_of(&until(&w, RolloutPhase::Stable).await);
        ends(&w, &["rollout", "status", "cats"], 0).await;
        is_seen(&w, "Healthy", Kstatus::Current).await;
        refused(&w, &["rollout", "promote", "cats"], "is under way").await;

        cluster.fate("b.onnx", Fate::Pending);
        w.edit::<InferenceService>("cats", json!({"spec": spec("b")}))
            .await;
        let second = revision_of(&until(&w, RolloutPhase::Preparing).await);
        ends(&w, &["rollout", "status", "cats", "--watch=false"], 5).await;
        is_seen(&w, "Progressing", Kstatus::InProgress).await;

        // A command for another one is not even written; one that another person wrote is refused by the operator.
        refused(
            &w,
            &["rollout", "abort", "cats", "--revision", &first],
            &format!("is {second}, not {first}"),
        )
        .await;

        ends(
            &w,
            &["rollout", "pause", "cats", "--wait", "--timeout", "60s"],
            0,
        )
        .await;
        let said = ends(&w, &["rollout", "status", "cats"], 4).await;
        assert!(said.out.contains("by command"), "{}", said.out);
        let view = ends(&w, &["status", "cats"], 0).await.out;
        assert!(
            view.contains("Preparing paused")
                && view.contains("`ortolan rollout resume cats` lets it go on"),
            "{view}"
        );
        is_seen(&w, "Suspended", Kstatus::InProgress).await;

        ends(&w, &["rollout", "resume", "cats", "--revision", &second], 0).await;
        w.until_service("it goes on", "cats", |service| {
            let rollout = service
                .status
                .as_ref()
                .and_then(|status| status.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.paused.is_none())
        })
        .await;
        is_seen(&w, "Progressing", Kstatus::InProgress).await;

        let said = ends(
            &w,
            &["rollout", "abort", "cats", "--wait", "--timeout", "60s"],
            0,
        )
        .await;
        assert!(
            said.out
                .contains(&format!("{second} is taken back, {first} serves")),
            "{}",
            said.out
        );
        ends(&w, &["rollout", "status", "cats"], 3).await;
        is_seen(&w, "Degraded", Kstatus::Failed).await;
        refused(
            &w,
            &["rollout", "promote", "cats"],
            "write `ortolan rollout retry cats`",
        )
        .await;

        ends(&w, &["rollout", "retry", "cats"], 0).await;
        until(&w, RolloutPhase::Preparing).await;
        is_seen(&w, "Progressing", Kstatus::InProgress).await;

        // The spec goes back to what serves: the candidate is left.
        ends(&w, &["rollout", "undo", "cats"], 0).await;
        assert_eq!(revision_of(&until(&w, RolloutPhase::Stable).await), first);
        ends(
            &w,
            &["wait", "cats", "--for=promoted", "--timeout", "60s"],
            0,
        )
        .await;
        is_seen(&w, "Healthy", Kstatus::Current).await;
    });
}
