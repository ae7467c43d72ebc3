//! Requests that wait run together, and each client gets its own rows.

use futures::future::try_join_all;
use ortolan_e2e::{Result, Service, Test, check, fail};
use serde_json::{Value, json};

const CLIENTS: usize = 16;

/// Runs of the model and rows in them, as the only pod counts them.
async fn runs_and_rows(service: &Service) -> Result<(f64, f64)> {
    let metrics = service.get_path("/metrics").await?.body;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    match (
        value("ortolan_batch_rows_count"),
        value("ortolan_batch_rows_sum"),
    ) {
        (Some(runs), Some(rows)) => Ok((runs, rows)),
        _ => fail(format!("ortolan_batch_rows is not there: {metrics}")),
    }
}

/// The model's answer for one flower.
async fn probabilities(service: &Service, row: &Value) -> Result<Value> {
    let body = json!({"inputs": [row]}).to_string().into_bytes();
    let answer = service
        .post("/predict/iris", "application/json", body)
        .await?;
    Ok(answer.json()?["predictions"][0].take())
}

/// The same labels in the same order, and numbers that differ in their last bits at most.
fn same(a: &Value, b: &Value) -> bool {
    let pairs = |v: &Value| -> Vec<(String, f64)> {
        let classes = v.as_array().into_iter().flatten();
        classes
            .filter_map(|c| Some((c["label"].as_str()?.to_owned(), c["probability"].as_f64()?)))
            .collect()
    };
    let (a, b) = (pairs(a), pairs(b));
    let near =
        |((la, pa), (lb, pb)): (&(String, f64), &(String, f64))| la == lb && (pa - pb).abs() < 1e-5;
    a.len() == 3 && a.len() == b.len() && a.iter().zip(&b).all(near)
}

#[tokio::test]
async fn requests_of_sixteen_clients_run_together_and_each_gets_its_own_answer() {
    Test::run(async |t| {
        t.apply_example("batching.yaml").await?;
        let service = t.service("iris");
        service.until_ready().await?;
        service.until_answers().await?;
        // Sixteen flowers of all three kinds, each of its own: an answer that went to the wrong client shows.
        let flowers: Vec<Value> = (0..CLIENTS)
            .map(|n| {
                let by = n as f64 / (CLIENTS - 1) as f64;
                json!([
                    5.0 + 1.5 * by,
                    3.4 - 0.4 * by,
                    1.4 + 4.4 * by,
                    0.2 + 2.0 * by
                ])
            })
            .collect();
        let mut alone = Vec::new();
        for flower in &flowers {
            alone.push(probabilities(&service, flower).await?);
        }
        check(
            alone
                .iter()
                .enumerate()
                .all(|(n, a)| alone[..n].iter().all(|b| !same(a, b))),
            || format!("the answers must differ for this to mean something: {alone:?}"),
        )?;
        let before = runs_and_rows(&service).await?;
        for _ in 0..4 {
            let asked = flowers.iter().map(|flower| probabilities(&service, flower));
            let together = try_join_all(asked).await?;
            for (n, (a, b)) in alone.iter().zip(&together).enumerate() {
                check(same(a, b), || {
                    format!("flower {n}: alone {a}, together {b}")
                })?;
            }
        }
        let after = runs_and_rows(&service).await?;
        let (runs, rows) = (after.0 - before.0, after.1 - before.1);
        check(rows == 4.0 * CLIENTS as f64 && runs <= rows / 2.0, || {
            format!("{rows} rows in {runs} runs")
        })
    })
    .await;
}
