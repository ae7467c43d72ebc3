//! Where models come from, and what the pods that fetch them may do.

use ortolan_e2e::{Node, Result, Service, Test, check, image, scratch, spec};
use serde_json::json;

/// A photograph goes in, its label comes out: the archive brought its pipeline and its labels.
async fn names_the_flower(t: &Test, service: &Service) -> Result {
    service.until_ready().await?;
    service.until_answers().await?;
    let flower = t.file_of_the_store("flower.jpg").await?;
    let path = format!("/predict/{}", service.name);
    let answer = service.post(&path, "image/jpeg", flower).await?.json()?;
    check(answer["predictions"][0]["label"] == "daisy", || {
        answer.to_string()
    })
}

#[tokio::test]
async fn a_private_store_gets_the_token_of_the_secret_and_the_operator_never_reads_it() {
    Test::run(async |t| {
        let _core = t.core().await;
        t.apply_example("private-store.yaml").await?;
        names_the_flower(t, &t.service("efficientnet-private")).await?;
        let operator = "system:serviceaccount:ortolan-system:ortolan-operator";
        let asked = ["auth", "can-i", "get", "secrets", "--as", operator];
        let may = t.kubectl(&asked).await;
        let told = may
            .err()
            .map_or_else(|| "yes".into(), |error| error.to_string());
        check(told.contains("no"), || {
            format!("the operator may read Secrets: {told}")
        })
    })
    .await;
}

#[tokio::test]
async fn a_model_on_a_claim_is_served() {
    if Node::here().is_none() {
        println!(
            "skipped: the volume is a folder of this machine, so it needs the single node of e2e/cluster"
        );
        return;
    }
    Test::run(async |t| {
        let _core = t.core().await;
        let model = t.file_of_the_store("efficientnet-lite0.tar.gz").await?;
        let volume = format!("{}/{}", scratch()?, t.namespace);
        let written = std::fs::create_dir_all(format!("{volume}/efficientnet"))
            .and_then(|()| std::fs::write(format!("{volume}/efficientnet/v1.tar.gz"), model));
        check(written.is_ok(), || format!("{volume}: {written:?}"))?;
        t.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": t.namespace},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": volume},
                "claimRef": {"namespace": t.namespace, "name": "models"},
            },
        }))
        .await?;
        t.apply_example("pvc.yaml").await?;
        let outcome = names_the_flower(t, &t.service("efficientnet-pvc")).await;
        t.kubectl(&["delete", "persistentvolume", &t.namespace, "--wait=false"])
            .await?;
        outcome
    })
    .await;
}

#[tokio::test]
async fn a_model_inside_an_image_of_ones_own_is_served() {
    Test::run(async |t| {
        let _core = t.core().await;
        let service = t.service("bundled");
        let mut wanted = spec("file:///models/efficientnet-lite0.tar.gz");
        wanted["server"]["image"] = json!(image("bundle"));
        service.apply(&wanted).await?;
        names_the_flower(t, &service).await
    })
    .await;
}

#[tokio::test]
async fn a_model_is_fetched_over_a_broken_connection_and_a_redirect_and_its_digest_is_recorded() {
    Test::run(async |t| {
        let broken = t.service("broken");
        broken
            .apply(&spec("faults/interrupted/bad/identity.onnx"))
            .await?;
        let moved = t.service("moved");
        moved.apply(&spec("redirect/bad/identity.onnx")).await?;
        for service in [&broken, &moved] {
            service.until_ready().await?;
            let seen = service
                .until("the digest is recorded", 60, |s| {
                    let status = s.status.clone().unwrap_or_default();
                    status.revisions.iter().any(|r| r.digest.is_some())
                })
                .await?;
            let revision = seen.status.unwrap_or_default().revisions[0].clone();
            let recorded = [
                "get",
                "configmap",
                &revision.name,
                "-o",
                "jsonpath={.data.digest}",
            ];
            let recorded = t.kubectl(&recorded).await?;
            check(Some(&recorded) == revision.digest.as_ref(), || {
                format!("{recorded}, {revision:?}")
            })?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn pods_are_restricted_and_have_no_token() {
    Test::run(async |t| {
        let root = t
            .kubectl(&["run", "root", "--image=localhost/ortolan/nothing:none"])
            .await;
        let refused = root
            .err()
            .map_or_else(String::new, |error| error.to_string());
        check(
            refused.contains("violates PodSecurity \"restricted"),
            || format!("the namespace must enforce the level restricted: {refused}"),
        )?;
        let service = t.service("tiny");
        service.apply(&spec("bad/identity.onnx")).await?;
        service.until_ready().await?;
        let pod = service.pods().await?.remove(0).spec.unwrap_or_default();
        check(pod.automount_service_account_token == Some(false), || {
            format!("{pod:?}")
        })?;
        let volumes: Vec<_> = pod
            .volumes
            .iter()
            .flatten()
            .map(|v| v.name.as_str())
            .collect();
        check(volumes == ["cache", "revision"], || format!("{volumes:?}"))?;
        let security = pod.containers[0]
            .security_context
            .clone()
            .unwrap_or_default();
        let closed = security.read_only_root_filesystem == Some(true)
            && security.allow_privilege_escalation == Some(false);
        check(closed, || format!("{security:?}"))
    })
    .await;
}
