//! The operator is killed at every write: before it, and after it without hearing the answer. A new one
//! then leads to the same end state as a run that nobody disturbed.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use ortolan_crds::InferenceService;
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    cluster::collect_garbage,
    snapshot::snapshot,
    tap::{Freeze, Tap},
    world::{spec, world},
};
use serde_json::json;

use crate::lifecycle::{revision_of, serving};

/// How many crashes are played at once: each has an operator and a namespace.
const AT_ONCE: usize = 20;
/// More writes than any of these stories makes.
const MANY: usize = 60;

/// What happens to the service `m`.
#[derive(Clone, Copy, PartialEq)]
enum Story {
    /// It is created, and becomes ready.
    Create,
    /// It serves, is changed, the new revision takes over and the old one goes.
    Update,
    /// It is created, and deleted when the operator has come so far.
    Delete,
}

impl Story {
    /// What stands before the operator that crashes begins.
    async fn prepare(self, w: &World) {
        if self == Self::Update {
            let operator = Operator::start(w);
            serving(w, "m", spec("a")).await;
            w.until_event("m", "Promoted", "").await;
            operator.stop().await;
            w.edit::<InferenceService>("m", json!({"spec": spec("b")}))
                .await;
        } else {
            let mut spec = spec("a");
            spec["scaling"] = json!({"minReplicas": 3});
            w.create("m", spec).await;
        }
    }

    /// The end of the story, by whichever operator works.
    async fn end(self, w: &World) {
        match self {
            Self::Create => {
                w.until_ready_is("m", "True", "Serving").await;
            }
            Self::Update => {
                let service = w.until_ready_is("m", "True", "Serving").await;
                let mut old = service.clone();
                old.spec.model.uri = service.spec.model.uri.replace("/b.onnx", "/a.onnx");
                assert_ne!(revision_of(&old), revision_of(&service));
                w.until_gone::<Deployment>(&revision_of(&old)).await;
            }
            Self::Delete => {
                let services = w.api::<InferenceService>();
                let params = DeleteParams::background();
                services.delete("m", &params).await.expect("a deletion");
                w.until_gone::<InferenceService>("m").await;
                w.until("garbage collection takes all", async || {
                    let left = collect_garbage(w).await;
                    if left.is_empty() {
                        Ok(())
                    } else {
                        Err(left.join(", "))
                    }
                })
                .await;
            }
        }
    }

    /// The end state, once nothing changes any more.
    async fn settled(self, w: &World) -> String {
        self.end(w).await;
        let mut last = snapshot(w).await;
        w.until("nothing changes any more", async || {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            if self == Self::Delete {
                // A write that was under way when the object went makes what a real collector takes a moment later.
                collect_garbage(w).await;
            }
            let before = std::mem::replace(&mut last, snapshot(w).await);
            if before == last {
                Ok(())
            } else {
                Err("it still changes".into())
            }
        })
        .await;
        last
    }
}

/// Whether the crash came before the story's end, and the end state.
async fn crash(w: World, story: Story, allowed: usize, freeze: Freeze) -> (bool, String) {
    let _cluster = Cluster::start(&w, Fate::Ready);
    story.prepare(&w).await;
    let tap = Tap::freezing(allowed, freeze);
    let first = Operator::with(&w, &[], tap.clone());
    let frozen = {
        let lived = if story == Story::Delete {
            Story::Create
        } else {
            story
        };
        let ended = std::pin::pin!(lived.settled(&w));
        tokio::select! {
            () = tap.frozen() => true,
            _ = ended => tap.is_frozen(),
        }
    };
    first.kill().await;
    let second = Operator::start(&w);
    let end = story.settled(&w).await;
    second.stop().await;
    (frozen, end)
}

async fn every_crash_ends_as_if_there_was_none(w: &World, story: Story) {
    let (_, undisturbed) = crash(w.beside("all").await, story, usize::MAX, Freeze::Before).await;
    let points = (0..MANY).flat_map(|n| [(n, Freeze::Before), (n, Freeze::After)]);
    let mut runs = stream::iter(points)
        .map(async |(n, freeze)| {
            let world = w.beside(&format!("{n}-{freeze:?}").to_lowercase()).await;
            (n, freeze, crash(world, story, n, freeze).await)
        })
        .buffered(AT_ONCE);
    let mut crashes = 0;
    while let Some((n, freeze, (frozen, end))) = runs.next().await {
        if !frozen {
            break;
        }
        crashes += 1;
        if end != undisturbed {
            let wrong: Vec<&str> = end
                .lines()
                .filter(|l| !undisturbed.lines().any(|u| u == *l))
                .collect();
            let missing: Vec<&str> = undisturbed
                .lines()
                .filter(|u| !end.lines().any(|l| l == *u))
                .collect();
            panic!(
                "killed at write {n}, {freeze:?}: there is {wrong:#?} in place of {missing:#?}\n{end}"
            );
        }
    }
    let (least, most) = (8, 2 * MANY);
    assert!(
        (least..most).contains(&crashes),
        "{crashes} crashes were played"
    );
}

#[test]
fn a_creation_survives_a_crash_at_every_write() {
    world(async |w| every_crash_ends_as_if_there_was_none(&w, Story::Create).await);
}

#[test]
fn an_update_survives_a_crash_at_every_write() {
    world(async |w| every_crash_ends_as_if_there_was_none(&w, Story::Update).await);
}

#[test]
fn a_deletion_survives_a_crash_at_every_write() {
    world(async |w| every_crash_ends_as_if_there_was_none(&w, Story::Delete).await);
}
