//! The command `ortolan` on a real cluster: it asks a model through a port that it forwards by itself, past the routers and
//! through them, and follows a rollout to its end.

use std::path::PathBuf;

use ortolan_e2e::{Failure, Result, Test, check, other_model, plain_spec};
use serde_json::json;
use tokio::process::Command;

use crate::bare::{until_kind, without_routers};

/// What the program printed; it has to end with this code.
async fn ortolan(t: &Test, arguments: &[&str], code: i32) -> Result<String> {
    let missing =
        || Failure::Wrong("ORTOLAN_CLI names no program: start the tests by e2e/run".into());
    let program = std::env::var_os("ORTOLAN_CLI")
        .map(PathBuf::from)
        .ok_or_else(missing)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args(["--namespace", &t.namespace])
        .kill_on_drop(true);
    let output = command.output().await;
    let output =
        output.map_err(|error| Failure::Wrong(format!("ortolan cannot be started: {error}")))?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    check(output.status.code() == Some(code), || {
        format!(
            "ortolan {} ended with {}, not {code}: {out}{err}",
            arguments.join(" "),
            output.status
        )
    })?;
    Ok(format!("{out}{err}"))
}

fn of_disk(error: std::io::Error) -> Failure {
    Failure::Wrong(format!("the request's file: {error}"))
}

/// The tiny model answers what it was given, behind the number of its version.
async fn answers(t: &Test, request: &str, first: &str, more: &[&str]) -> Result {
    let mut arguments = vec!["predict", "tiny", "--json", request, "-o", "json"];
    arguments.extend(more);
    let said = ortolan(t, &arguments, 0).await?;
    let answer: serde_json::Value = serde_json::from_str(&said)?;
    let data = answer["outputs"][0]["data"][0].to_string();
    check(data == first, || {
        format!("it begins with {first}: {answer}")
    })
}

#[tokio::test]
async fn a_person_asks_a_model_and_follows_a_rollout_from_outside_of_the_cluster() {
    Test::alone(async |t| {
        let folder = std::env::temp_dir().join(&t.namespace);
        std::fs::create_dir_all(&folder).map_err(of_disk)?;
        let request = folder.join("request.json");
        let inputs =
            json!([{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]);
        std::fs::write(&request, json!({"inputs": inputs}).to_string()).map_err(of_disk)?;
        let request = request.to_string_lossy().into_owned();

        let service = t.service("tiny");
        without_routers(async || {
            service.apply(&plain_spec("bad/identity.onnx")).await?;
            ortolan(t, &["wait", "tiny", "--timeout", "2m"], 0).await?;
            answers(t, &request, "1.0", &[]).await?;
            let refused = ortolan(t, &["predict", "tiny", "--text", "hello"], 1).await?;
            check(refused.contains("answers 4"), || refused.clone())
        })
        .await?;
        until_kind(t, &service, "ExternalName").await?;
        answers(t, &request, "1.0", &[]).await?;
        let old = t
            .kubectl(&[
                "get",
                "oisvc",
                "tiny",
                "-o",
                "jsonpath={.status.traffic[0].revision}",
            ])
            .await?;
        answers(t, &request, "1.0", &["--revision", &old]).await?;

        let mut next = other_model();
        // Nobody asks it anything but this test: its time is what is waited for.
        next["rollout"] = json!({
            "steps": [{"weight": 50, "soak": "2s"}],
            "analysis": {"minRequests": 0, "settle": "10s"},
        });
        service.change(&next).await?;
        let said = ortolan(t, &["rollout", "status", "tiny", "--timeout", "3m"], 0).await?;
        check(said.contains("is promoted"), || said.clone())?;
        answers(t, &request, "2.0", &[]).await?;
        let seen = ortolan(t, &["status", "tiny"], 0).await?;
        check(seen.contains("stable") && seen.contains("kept"), || {
            seen.clone()
        })?;

        // The old one is kept: it is back without steps.
        ortolan(t, &["rollout", "undo", "tiny"], 0).await?;
        ortolan(t, &["wait", "tiny", "--for=promoted", "--timeout", "3m"], 0).await?;
        answers(t, &request, "1.0", &[]).await?;
        std::fs::remove_dir_all(folder).map_err(of_disk)
    })
    .await;
}
