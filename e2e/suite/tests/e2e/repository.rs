//! Several models in one service, listed over the Service, loaded and unloaded at the pod: through the routers one of many pods would be
//! changed, by anybody who may ask for a prediction.

use ortolan_e2e::{Reply, Result, Service, Test, check};
use serde_json::{Value, json};

async fn post(service: &Service, path: &str, body: &Value) -> Result<Reply> {
    let kind = "application/json";
    service
        .post(path, kind, body.to_string().into_bytes())
        .await
}

/// Loads or unloads a model of the service's only pod.
async fn manage(service: &Service, model: &str, what: &str) -> Result<Reply> {
    let path = format!("/v2/repository/models/{model}/{what}");
    let kind = "application/json";
    service.post_to_a_pod(&path, kind, b"{}".to_vec()).await
}

/// Name and state of every model, by name.
async fn index(service: &Service) -> Result<Vec<(String, String)>> {
    let told = post(service, "/v2/repository/index", &json!({}))
        .await?
        .json()?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let entries = told.as_array().into_iter().flatten();
    let mut all: Vec<_> = entries
        .map(|e| (text(&e["name"]), text(&e["state"])))
        .collect();
    all.sort();
    Ok(all)
}

async fn expect_index(service: &Service, states: [&str; 2]) -> Result {
    let seen = index(service).await?;
    let expected: Vec<_> = ["breast-cancer", "iris"]
        .into_iter()
        .zip(states)
        .map(|(name, state)| (name.to_owned(), state.to_owned()))
        .collect();
    check(seen == expected, || {
        format!("{seen:?}, {expected:?} was expected")
    })
}

/// The status of a prediction, and the likeliest label.
async fn label(service: &Service, model: &str, row: &Value) -> Result<(u16, String)> {
    let path = format!("/predict/{model}");
    let reply = post(service, &path, &json!({"inputs": [row]})).await?;
    let answer: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let label = answer["predictions"][0][0]["label"].as_str();
    Ok((reply.status, label.unwrap_or(&reply.body).to_owned()))
}

async fn expect_label(service: &Service, model: &str, row: &Value, expected: &str) -> Result {
    let seen = label(service, model, row).await?;
    check(seen == (200, expected.to_owned()), || {
        format!("{model}: {seen:?}, {expected} was expected")
    })
}

#[tokio::test]
async fn the_models_of_the_example_are_served_listed_unloaded_and_loaded_by_name() {
    Test::run(async |t| {
        t.apply_example("repository.yaml").await?;
        let service = t.service("tables");
        service.until_ready().await?;
        service.until_answers().await?;
        expect_index(&service, ["READY", "READY"]).await?;
        let flower = json!([5.9, 3.0, 5.1, 1.8]);
        expect_label(&service, "iris", &flower, "virginica").await?;
        // Every measure is missing: the mean of all.
        let tumour = json!(vec![Value::Null; 30]);
        let known = label(&service, "breast-cancer", &tumour).await?;
        check(
            known.0 == 200 && ["benign", "malignant"].contains(&known.1.as_str()),
            || format!("{known:?}"),
        )?;

        let refused = post(&service, "/v2/repository/models/iris/unload", &json!({})).await?;
        check(
            refused.status == 403 && refused.body.contains("router"),
            || format!("{refused:?}"),
        )?;
        let unloaded = manage(&service, "iris", "unload").await?;
        check(unloaded.status == 200, || format!("{unloaded:?}"))?;
        expect_index(&service, ["READY", "UNAVAILABLE"]).await?;
        let (status, sentence) = label(&service, "iris", &flower).await?;
        check(status >= 400 && sentence.contains("iris"), || {
            format!("an unloaded model answers {status} {sentence}")
        })?;
        // The other one notices nothing, and the pod stays ready.
        check(
            label(&service, "breast-cancer", &tumour).await? == known,
            || "breast-cancer answers something else".into(),
        )?;
        service.until_ready().await?;

        let loaded = manage(&service, "iris", "load").await?;
        check(loaded.status == 200, || format!("{loaded:?}"))?;
        expect_index(&service, ["READY", "READY"]).await?;
        expect_label(&service, "iris", &flower, "virginica").await?;
        let nothing = manage(&service, "nothing", "load").await?;
        check(
            nothing.status == 404 && nothing.body.contains("nothing"),
            || format!("{nothing:?}"),
        )
    })
    .await;
}

#[tokio::test]
async fn without_the_management_api_nobody_unloads_anything() {
    Test::run(async |t| {
        let service = t.service("closed");
        service.apply(&ortolan_e2e::spec("tables.tar.gz")).await?;
        service.until_ready().await?;
        service.until_answers().await?;
        expect_index(&service, ["READY", "READY"]).await?;
        let refused = manage(&service, "iris", "unload").await?;
        check(refused.status == 403, || format!("{refused:?}"))?;
        expect_index(&service, ["READY", "READY"]).await
    })
    .await;
}
