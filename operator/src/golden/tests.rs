//! The store and the pods are servers on loopback that answer as ours do; with a real ortolan-server it is
//! `server/tests/golden.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ortolan_core::rollout::golden::{Agreement, Verdict};
use tokio::net::TcpListener;

use super::*;
use crate::asker::PAUSE;

/// What stands at a path: a code, headers, a body.
type File = (u16, Vec<(&'static str, String)>, Vec<u8>);

#[derive(Clone, Default)]
struct Files {
    files: Arc<Mutex<HashMap<String, File>>>,
    hits: Arc<AtomicUsize>,
}

struct Site {
    base: String,
    files: Files,
}

async fn serve(paths: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, paths).await.expect("served") });
    address
}

async fn file(State(site): State<Files>, uri: Uri, headers: HeaderMap) -> Response {
    assert!(!headers.contains_key(header::AUTHORIZATION));
    site.hits.fetch_add(1, Ordering::SeqCst);
    let files = site.files.lock().expect("a lock");
    let (code, headers, body) = match files.get(uri.path()) {
        Some(file) => file.clone(),
        None => (404, Vec::new(), Vec::new()),
    };
    let mut response = body.into_response();
    *response.status_mut() = StatusCode::from_u16(code).expect("a code");
    for (name, value) in headers {
        let value = value.parse().expect("a header");
        response.headers_mut().insert(name, value);
    }
    response
}

impl Site {
    async fn new() -> Self {
        let files = Files::default();
        let paths = Router::new().fallback(file).with_state(files.clone());
        let base = format!("http://{}", serve(paths).await);
        Self { base, files }
    }

    fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> String {
        self.put_as(path, 200, Vec::new(), body)
    }

    fn put_as(
        &self,
        path: &str,
        code: u16,
        headers: Vec<(&'static str, String)>,
        body: impl Into<Vec<u8>>,
    ) -> String {
        let mut files = self.files.files.lock().expect("a lock");
        files.insert(path.to_owned(), (code, headers, body.into()));
        format!("{}{path}", self.base)
    }

    fn hits(&self) -> usize {
        self.files.hits.load(Ordering::SeqCst)
    }
}

/// How a pod answers.
#[derive(Clone, Default)]
struct Model {
    /// Instead of what the photograph shows.
    label: Option<&'static str>,
    /// So many requests are turned away first.
    busy: usize,
    asked: Arc<AtomicUsize>,
    pause: Duration,
}

/// A photograph shows what its bytes say; the only output of tensors is the first row of a matrix.
async fn answer(State(model): State<Model>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let asked = model.asked.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(model.pause).await;
    if asked < model.busy {
        let sentence = r#"{"error": "1 requests are under way, as many as --max-concurrency lets in; try again"}"#;
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [("retry-after", "0")],
            sentence,
        )
            .into_response();
    }
    match uri.path() {
        "/predict/m" => {
            let shown = std::str::from_utf8(&body).unwrap_or("nothing");
            let label = model.label.unwrap_or(shown);
            format!(r#"{{"model": "m", "version": "1", "predictions": [{{"label": "{label}", "index": 1}}]}}"#)
                .into_response()
        }
        "/v2/models/m/infer" => {
            assert_eq!(headers[header::CONTENT_TYPE], "application/json");
            r#"{"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.7, 0.2]}]}"#
                .into_response()
        }
        path => {
            let sentence = format!(r#"{{"error": "there is no model at {path}"}}"#);
            (StatusCode::NOT_FOUND, sentence).into_response()
        }
    }
}

impl Model {
    async fn start(&self) -> String {
        let paths = Router::new().fallback(answer).with_state(self.clone());
        serve(paths).await
    }
}

struct World {
    golden: Golden,
    triggers: mpsc::UnboundedReceiver<Key>,
    site: Site,
}

fn key() -> Key {
    Key {
        namespace: "ns".into(),
        name: "m".into(),
    }
}

fn pod<'a>(revision: &'a str, address: &'a str) -> Pod<'a> {
    Pod {
        revision,
        address,
        model: "m",
    }
}

impl World {
    async fn new() -> Self {
        let (sender, triggers) = mpsc::unbounded_channel();
        Self {
            golden: Golden::new(Reach::Anywhere, sender).expect("TLS"),
            triggers,
            site: Site::new().await,
        }
    }

    /// Waits for the run's end as a reconcile does.
    async fn outcome(&mut self, uri: &str, candidate: Pod<'_>, stable: Option<Pod<'_>>) -> Outcome {
        assert_eq!(self.golden.of(&key(), uri, candidate, stable), None);
        let heard = tokio::time::timeout(Duration::from_secs(30), self.triggers.recv());
        assert_eq!(heard.await.expect("in time"), Some(key()));
        let outcome = self.golden.of(&key(), uri, candidate, stable);
        outcome.expect("an outcome")
    }

    async fn judged(&mut self, uri: &str, candidate: &str, stable: Option<&str>) -> Judgement {
        let stable = stable.map(|address| pod("m-1", address));
        match self.outcome(uri, pod("m-2", candidate), stable).await {
            Outcome::Judged(judgement) => judgement,
            other => panic!("{other:?}"),
        }
    }

    async fn unusable(&mut self, uri: &str) -> String {
        let address = Model::default().start().await;
        match self.outcome(uri, pod("m-2", &address), None).await {
            Outcome::Unusable(why) => why,
            other => panic!("{uri}: {other:?}"),
        }
    }
}

const TENSORS: &str = r#"{"request": {"inputs": []}, "expected": {"class": 1}}"#;

#[tokio::test]
async fn the_candidate_and_the_stable_revision_answer_and_the_first_disagreements_are_told() {
    let mut world = World::new().await;
    world.site.put("/set/images/rose.jpg", "rose");
    let daisy = STANDARD.encode("daisy");
    let set = format!(
        "{TENSORS}\n\n{{\"image\": \"images/rose.jpg\", \"label\": \"rose\"}}\n{{\"image\": \"{daisy}\", \"label\": \"daisy\"}}\n"
    );
    let uri = world.site.put("/set/golden.jsonl", set);
    let candidate = Model {
        label: Some("daisy"),
        ..Model::default()
    };
    let (candidate, stable) = (candidate.start().await, Model::default().start().await);
    let judgement = world.judged(&uri, &candidate, Some(&stable)).await;
    let of = |agreed| Agreement { agreed, all: 3 };
    assert_eq!(
        (judgement.candidate, judgement.stable),
        (of(2), Some(of(3)))
    );
    assert_eq!(judgement.disagreements, [r#"line 3: "daisy", not "rose""#]);
    assert!(matches!(judgement.verdict(0.6), Verdict::Passed(_)));
    assert!(matches!(judgement.verdict(0.99), Verdict::Failed(_)));
}

#[tokio::test]
async fn a_run_is_remembered_by_revision_and_address_until_it_is_forgotten() {
    let mut world = World::new().await;
    let uri = world.site.put("/golden.jsonl", TENSORS);
    let model = Model::default();
    let address = model.start().await;
    world.judged(&uri, &address, None).await;
    let golden = world.golden.clone();
    for _ in 0..5 {
        let outcome = golden.of(&key(), &uri, pod("m-2", "10.255.255.1"), None);
        assert!(matches!(outcome, Some(Outcome::Judged(_))));
    }
    assert_eq!(
        (world.site.hits(), model.asked.load(Ordering::SeqCst)),
        (1, 1)
    );
    world.outcome(&uri, pod("m-3", &address), None).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 2, "another revision");
    let other = world.site.put("/other.jsonl", TENSORS);
    world.outcome(&other, pod("m-3", &address), None).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 3, "another set");
    golden.forget(&key());
    world.outcome(&other, pod("m-3", &address), None).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 4, "judged anew");
    golden.forget(&key());
    assert!(golden.runs().by_service.is_empty());
}

#[tokio::test]
async fn a_run_that_another_revision_replaces_ends_and_says_nothing() {
    let mut world = World::new().await;
    let uri = world
        .site
        .put("/golden.jsonl", vec![TENSORS; 400].join("\n"));
    let slow = Model {
        pause: Duration::from_millis(20),
        ..Model::default()
    };
    let (slow_address, fast) = (slow.start().await, Model::default().start().await);
    assert_eq!(
        world
            .golden
            .of(&key(), &uri, pod("m-2", &slow_address), None),
        None
    );
    while slow.asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let outcome = world.outcome(&uri, pod("m-3", &fast), None).await;
    assert!(matches!(outcome, Outcome::Judged(judgement) if judgement.candidate.all == 400));
    let asked = slow.asked.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        slow.asked.load(Ordering::SeqCst) <= asked + 2,
        "it was ended"
    );
    assert!(world.triggers.try_recv().is_err());
}

#[tokio::test]
async fn a_set_that_cannot_be_used_is_told_of_in_a_sentence() {
    let mut world = World::new().await;
    let site = &world.site;
    let moved = |to: &str| vec![("location", to.to_owned())];
    let elsewhere = format!("{}/golden.jsonl?token=secret", Site::new().await.base);
    let image = |at: &str| format!("{TENSORS}\n{{\"image\": \"{at}\", \"label\": \"daisy\"}}");
    let cases = [
        (
            site.put("/1", format!("{TENSORS}\nnot json")),
            "line 2 of the golden set is no JSON object",
        ),
        (site.put("/2", ""), "the file is empty"),
        (
            format!("{}/none", site.base),
            "404 Not Found; correct rollout.validation.uri",
        ),
        (
            site.put_as("/3", 403, vec![], ""),
            "the operator has no credentials",
        ),
        (
            site.put("/4", vec![b' '; (32 << 20) + 1]),
            "more than 33554432 bytes",
        ),
        (
            site.put_as("/5", 302, moved("/5"), ""),
            "redirects more than 5 times",
        ),
        (
            site.put_as("/6", 302, moved(&elsewhere), ""),
            "404 Not Found",
        ),
        (
            site.put_as("/7", 302, vec![], ""),
            "302 Found without an address",
        ),
        (
            site.put("/8", image("photo.jpg")),
            "line 2 of the golden set: http",
        ),
        (
            site.put("/9", image("http://elsewhere.example/photo.jpg")),
            "line 2 of the golden set has an image at another host",
        ),
        (
            "ftp://e/golden.jsonl".to_owned(),
            "put the golden set at an http or https address",
        ),
        ("golden.jsonl".to_owned(), "is no address"),
    ];
    for (uri, part) in cases {
        let why = world.unusable(&uri).await;
        assert!(
            why.contains(part) && !why.contains("secret"),
            "{uri}: {why}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let mut world = World::new().await;
    let to = world.site.put("/v2/golden.jsonl", TENSORS);
    let uri = world
        .site
        .put_as("/golden.jsonl", 307, vec![("location", to)], "");
    let address = Model::default().start().await;
    let judgement = world.judged(&uri, &address, None).await;
    assert_eq!(judgement.candidate, Agreement { agreed: 1, all: 1 });
}

#[tokio::test]
async fn what_is_not_reached_is_tried_again_later_and_judges_nobody() {
    let mut world = World::new().await;
    let fine = Model::default().start().await;
    let broken = world.site.put_as("/broken", 500, vec![], "");
    let set = world.site.put("/golden.jsonl", TENSORS);
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").to_string()
    };
    let busy = Model {
        busy: usize::MAX,
        ..Model::default()
    };
    let busy = busy.start().await;
    for (uri, address, part) in [
        (broken.as_str(), fine.as_str(), "500 Internal Server Error"),
        ("http://127.0.0.1:1/golden.jsonl", &fine, "is not reached"),
        (&set, &nobody, "is not reached"),
        (&set, "no address", "is no address of a pod"),
        (&set, &busy, "answered 5 times that it is busy"),
    ] {
        world.golden.forget(&key());
        let outcome = world.outcome(uri, pod("m-2", address), None).await;
        let Outcome::Unreached { why, again } = outcome else {
            panic!("{uri} {address}: {outcome:?}")
        };
        assert!(why.contains(part), "{why}");
        assert!(again <= PAUSE && !again.is_zero());
    }
    // After the pause, by itself, and with the pod that there is then.
    {
        let mut runs = world.golden.runs();
        let run = runs.by_service.get_mut(&key()).expect("a run");
        let super::State::Failed { at, .. } = &mut run.state else {
            panic!("failed")
        };
        *at = at.checked_sub(PAUSE).expect("a time");
    }
    let judgement = world.judged(&set, &fine, None).await;
    assert_eq!(judgement.candidate, Agreement { agreed: 1, all: 1 });
}

#[tokio::test]
async fn a_pod_that_is_busy_for_a_moment_is_asked_again_and_a_stable_one_that_is_gone_is_left_out()
{
    let mut world = World::new().await;
    let uri = world.site.put("/golden.jsonl", TENSORS);
    let busy = Model {
        busy: 2,
        ..Model::default()
    };
    let address = busy.start().await;
    let judgement = world.judged(&uri, &address, Some("127.0.0.1:1")).await;
    assert_eq!(judgement.candidate, Agreement { agreed: 1, all: 1 });
    assert_eq!(judgement.stable, None);
    assert_eq!(busy.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_line_that_the_model_refuses_disagrees() {
    let mut world = World::new().await;
    let uri = world.site.put("/golden.jsonl", TENSORS);
    let address = Model::default().start().await;
    let candidate = Pod {
        model: "other",
        ..pod("m-2", &address)
    };
    let outcome = world.outcome(&uri, candidate, None).await;
    let Outcome::Judged(judgement) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(judgement.candidate, Agreement { agreed: 0, all: 1 });
    assert_eq!(
        judgement.disagreements,
        ["line 1: 404: there is no model at /v2/models/other/infer"]
    );
}
