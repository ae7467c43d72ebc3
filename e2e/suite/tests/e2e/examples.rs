//! The examples that no other test applies, as they stand.

use futures::future::join_all;
use ortolan_e2e::{Result, Service, Test, check};
use serde_json::{Value, json};

/// What Python answers to the rows and files of the reference (`server/tests/reference/make.py`).
const REFERENCE: &str = include_str!("../../../../server/tests/reference/reference.json");

async fn serving(t: &Test, example: &str, name: &str) -> Result<Service> {
    t.apply_example(example).await?;
    let service = t.service(name);
    service.until_ready().await?;
    service.until_answers().await?;
    Ok(service)
}

/// Makes room for the next one.
async fn gone(service: &Service) -> Result {
    service.delete().await?;
    service.until_no_pods().await
}

#[tokio::test]
async fn the_pipeline_of_the_spec_goes_before_the_archives_and_a_pods_requests_are_bounded() {
    Test::run(async |t| {
        let _core = t.core().await;
        let service = serving(t, "pipeline.yaml", "daisy-or-not").await?;
        let path = "/predict/daisy-or-not";
        let flower = t.file_of_the_store("flower.jpg").await?;
        let answer = service
            .post(path, "image/jpeg", flower.clone())
            .await?
            .json()?;
        let labels = answer["predictions"].as_array().map_or(0, Vec::len);
        check(
            labels == 1 && answer["predictions"][0]["label"] == "daisy",
            || format!("one label, where the archive's own pipeline gives five: {answer}"),
        )?;
        // Twice as many as a pod takes: the pod turns some away at once, or the routers let them wait; none is lost.
        let asked = (0..64).map(|_| service.post(path, "image/jpeg", flower.clone()));
        let mut turned_away = 0;
        for reply in join_all(asked).await {
            let reply = reply?;
            match reply.status {
                200 => check(reply.json()?["predictions"][0]["label"] == "daisy", || {
                    format!("{reply:?}")
                })?,
                503 => {
                    turned_away += 1;
                    check(reply.body.contains("32"), || {
                        format!("the limit is not named: {reply:?}")
                    })?;
                }
                _ => check(false, || format!("{reply:?}"))?,
            }
        }
        check(turned_away <= 32, || {
            format!("{turned_away} of 64 requests were turned away, with a limit of 32")
        })
    })
    .await;
}

/// The label that a prediction gives first.
fn first(prediction: &Value) -> &Value {
    &prediction[0]["label"]
}

#[tokio::test]
async fn the_examples_for_files_rows_and_production_answer() {
    Test::run(async |t| {
        let _core = t.core().await;
        let reference: Value = serde_json::from_str(REFERENCE)?;

        let service = serving(t, "magika.yaml", "magika").await?;
        let flower = t.file_of_the_store("flower.jpg").await?;
        let kind = "application/octet-stream";
        let answer = service
            .post("/predict/magika", kind, flower.clone())
            .await?
            .json()?;
        check(first(&answer["predictions"]) == "jpeg", || {
            answer.to_string()
        })?;
        gone(&service).await?;

        let service = serving(t, "breast-cancer.yaml", "breast-cancer").await?;
        let expected = &reference["breast-cancer"];
        let body = json!({"inputs": expected["rows"]}).to_string().into_bytes();
        let path = "/predict/breast-cancer";
        let answer = service.post(path, "application/json", body).await?.json()?;
        let rows = expected["probabilities"].as_array().into_iter().flatten();
        for (n, row) in rows.enumerate() {
            let wanted = match row[0].as_f64() > row[1].as_f64() {
                true => "malignant",
                false => "benign",
            };
            let label = first(&answer["predictions"][n]);
            check(label == wanted, || format!("row {n} is {wanted}: {answer}"))?;
        }
        gone(&service).await?;

        let service = serving(t, "production.yaml", "efficientnet-production").await?;
        let path = "/predict/efficientnet-production";
        let answer = service.post(path, "image/jpeg", flower).await?.json()?;
        check(first(&answer["predictions"]) == "daisy", || {
            answer.to_string()
        })?;
        let pods = service.pods().await?.len();
        check(pods == 2, || format!("{pods} pods"))
    })
    .await;
}
