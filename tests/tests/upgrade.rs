//! New versions of the definition and of the operator, and installations beside each other.

use std::time::Duration;

use k8s_openapi::{
    api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps,
    },
};
use kube::{ResourceExt, api::ListParams};
use ortolan_crds::InferenceService;
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    tap::Tap,
    world::{apply_definition, definition_may_change, spec, world},
};
use serde_json::json;

use crate::lifecycle::{revision_of, serving};

/// As a later release might write it: other words, and a field that this operator does not know.
fn later() -> CustomResourceDefinition {
    let mut crd = ortolan_crds::all().remove(0);
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut());
        let schema = schema.expect("a schema");
        schema.description = Some("Serves a model, and more.".into());
        let spec = schema
            .properties
            .as_mut()
            .and_then(|p| p.get_mut("spec"))
            .expect("a spec");
        let field = JSONSchemaProps {
            type_: Some("string".into()),
            description: Some("What a later release brings.".into()),
            ..JSONSchemaProps::default()
        };
        let fields = spec.properties.get_or_insert_default();
        fields.insert("later".into(), field);
    }
    crd
}

/// Name, generation and template of every Deployment.
async fn deployments(w: &World) -> Vec<(String, Option<i64>, Option<String>)> {
    let list = w.api::<Deployment>().list(&ListParams::default()).await;
    let items = list.expect("a list").items.into_iter();
    items
        .map(|d| (d.name_any(), d.metadata.generation, d.uid()))
        .collect()
}

#[test]
fn a_new_definition_and_a_new_operator_with_other_defaults_change_no_deployment() {
    let _alone = definition_may_change();
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        for name in ["a", "b"] {
            serving(&w, name, spec(name)).await;
            w.until_event(name, "Promoted", "").await;
        }
        let before = deployments(&w).await;

        // First the definition, under the old operator, as Helm does.
        apply_definition(&w.client, &later()).await;
        // The API server takes a new schema up some time after it has answered; until then it drops the field.
        let kept = async {
            let with_it = json!({"spec": {"later": "x"}});
            while w
                .edit::<InferenceService>("a", with_it.clone())
                .await
                .metadata
                .generation
                == Some(1)
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let kept = tokio::time::timeout(Duration::from_secs(60), kept).await;
        assert!(kept.is_ok(), "the new field is never kept");
        w.until_ready_is("a", "True", "Serving").await;
        assert_eq!(deployments(&w).await, before);

        operator.stop().await;
        let options = [
            "--server-image-cpu",
            "ortolan/server:2",
            "--image-pull-policy",
            "Always",
        ];
        let upgraded = Operator::with(&w, &options, Tap::default());
        for name in ["a", "b"] {
            let touched = json!({"spec": {"suspend": false}});
            w.edit::<InferenceService>(name, touched).await;
            w.until_ready_is(name, "True", "Serving").await;
        }
        assert_eq!(deployments(&w).await, before);
        let writes = upgraded.tap.writes();
        assert!(
            writes.iter().all(|write| write.contains("/status")),
            "{writes:#?}"
        );

        // And back.
        for crd in ortolan_crds::all() {
            apply_definition(&w.client, &crd).await;
        }
        serving(&w, "c", spec("c")).await;
        assert_eq!(deployments(&w).await[..2], before[..]);
    });
}

#[test]
fn two_installations_of_one_namespace_each_work_on_their_own_only() {
    world(async |w| {
        let other = w.beside("other").await;
        let _clusters = (
            Cluster::start(&w, Fate::Ready),
            Cluster::start(&other, Fate::Ready),
        );
        let ours = Operator::start(&w);
        w.create("m", spec("a")).await;
        other.create("m", spec("a")).await;
        w.until_ready_is("m", "True", "Serving").await;
        assert_eq!(other.get::<InferenceService>("m").await.status, None);

        let theirs = Operator::with(&other, &["--server-image-cpu", "theirs:1"], Tap::default());
        let service = other.until_ready_is("m", "True", "Serving").await;
        other.until_event("m", "Promoted", "").await;
        let status = service.status.as_ref().expect("a status");
        assert_eq!(status.revisions[0].image.as_deref(), Some("theirs:1"));
        let name = revision_of(&service);
        assert_eq!(
            w.get::<Deployment>(&name).await.name_any(),
            name,
            "one name in both"
        );
        for (world, operator) in [(&*w, &ours), (&other, &theirs)] {
            let here = format!("/namespaces/{}/", world.namespace);
            let writes = operator.tap.writes();
            assert!(!writes.is_empty());
            assert!(
                writes.iter().all(|write| write.contains(&here)),
                "{writes:#?}"
            );
        }
    });
}
