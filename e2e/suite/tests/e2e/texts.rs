//! Texts become vectors, through the Service.

use ortolan_e2e::{Result, Test, check};
use serde_json::{Value, json};

/// What the Python packages of the model and of its tokenizer answer (`server/tests/reference/make.py`).
const REFERENCE: &str = include_str!("../../../../server/tests/reference/reference.json");
/// 1 minus the cosine: what a vector may differ from the reference on another processor.
const CLOSE: f64 = 0.001;

fn numbers(vector: &Value) -> Vec<f64> {
    let values = vector.as_array().into_iter().flatten();
    values.filter_map(Value::as_f64).collect()
}

/// Of two vectors of length 1; NaN, which is near to nothing, where their lengths differ.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() || a.is_empty() {
        return f64::NAN;
    }
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn the_example_for_texts_gives_the_references_vectors_in_both_shapes() {
    Test::run(async |t| {
        let _core = t.core().await;
        t.apply_example("minilm.yaml").await?;
        let service = t.service("minilm");
        service.until_ready().await?;
        service.until_answers().await?;
        let reference: Value = serde_json::from_str(REFERENCE)?;
        for case in reference["minilm"].as_array().into_iter().flatten() {
            let body = json!({"inputs": case["text"]}).to_string().into_bytes();
            let path = "/predict/minilm";
            let answer = service.post(path, "application/json", body).await?.json()?;
            let vector = numbers(&answer["embeddings"][0]);
            let near = cosine(&vector, &numbers(&case["embedding"]));
            check(near > 1.0 - CLOSE, || format!("{}: {near}", case["text"]))?;
        }
        meaning_is_near(t).await
    })
    .await;
}

/// In OpenAI's shape: a sentence lies nearer to one that means the same than to one that does not.
async fn meaning_is_near(t: &Test) -> Result {
    let texts = [
        "How do I reset my password?",
        "I forgot the password of my account",
        "The weather in Lisbon is sunny",
    ];
    let body = json!({"model": "minilm", "input": texts}).to_string();
    let service = t.service("minilm");
    let kind = "application/json";
    let answer = service
        .post("/v1/embeddings", kind, body.into_bytes())
        .await?
        .json()?;
    let vectors: Vec<_> = (0..3)
        .map(|n| numbers(&answer["data"][n]["embedding"]))
        .collect();
    let (same, other) = (
        cosine(&vectors[0], &vectors[1]),
        cosine(&vectors[0], &vectors[2]),
    );
    check(same > 0.5 && other < 0.3, || {
        format!("the same meaning {same}, another {other}")
    })?;
    let wrong = json!({"model": "another", "input": "x"}).to_string();
    let refused = service
        .post("/v1/embeddings", kind, wrong.into_bytes())
        .await?;
    check(
        refused.status == 404 && refused.body.contains("another"),
        || format!("{refused:?}"),
    )
}
