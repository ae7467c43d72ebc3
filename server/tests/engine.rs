//! The engine and the catalog in this process: priorities, deadlines, models that come and go.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use ort::environment::Environment;
use ortolan_model::{ModelUri, settings::Priorities};
use ortolan_server::{
    app::App,
    cache::ResponseCache,
    catalog::{Catalog, FindError},
    infer::{self, Outcome, Request, RunError},
    model::{Identity, Model, Settings},
    options::Options,
    runtime,
    startup::Startup,
    tensor::{Elements, Tensor, View},
};
use support::onnx;

fn environment() -> &'static Environment {
    static STARTED: OnceLock<Environment> = OnceLock::new();
    STARTED.get_or_init(|| runtime::start(None).unwrap().0)
}

fn settings(options: &[&str]) -> Settings {
    use clap::Parser;
    let all = [&["ortolan-server", "m.onnx"], options].concat();
    Settings::from(&Options::try_parse_from(all).unwrap())
}

async fn open(app: &App, model: &onnx::Model, version: &str, settings: Settings) -> Arc<Model> {
    let (dir, path) = support::written(model);
    let uri: ModelUri = path.display().to_string().parse().unwrap();
    let request = ortolan_model::Request::new(uri, dir.path().join("cache"));
    let startup = Startup::default();
    let package = ortolan_model::obtain(&request, &startup).await.unwrap();
    let identity = Identity {
        name: "m".into(),
        version: version.into(),
    };
    let meter = app.metrics.meter("m", version);
    let opening = move || Model::open(identity, &settings, environment(), package, &startup, meter);
    let opened = tokio::task::spawn_blocking(opening).await.unwrap();
    Arc::new(opened.unwrap())
}

fn rows(count: i64, width: i64, value: f32) -> Request {
    Request::new(vec![Some(Tensor {
        shape: vec![count, width],
        elements: Elements::Fp32(vec![value; (count * width) as usize]),
    })])
}

async fn run(app: &App, model: &Model, request: Request) -> Result<Outcome, RunError> {
    infer::run(app, model, request).await
}

#[tokio::test]
async fn a_request_of_a_higher_priority_overtakes_those_that_wait() {
    let app = Arc::new(App::new(1));
    let mut settings = settings(&["--sessions", "1", "--max-batch", "1"]);
    settings.priorities = Some(Priorities {
        levels: 2,
        default: 2,
    });
    let model = open(&app, &onnx::slow(256, 300), "1", settings).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    // The first begins at once; the others wait.
    for (name, priority) in [("first", 0), ("a", 0), ("b", 2), ("c", 9), ("urgent", 1)] {
        let (app, model, order) = (Arc::clone(&app), Arc::clone(&model), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let request = Request {
                priority,
                ..rows(8, 256, 1.0)
            };
            run(&app, &model, request).await.unwrap();
            order.lock().unwrap().push(name);
        }));
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().unwrap();
    let place = |name: &str| order.iter().position(|at| *at == name).unwrap();
    assert!(place("urgent") <= 1, "{order:?}");
    assert!(
        place("a") < place("b") && place("b") < place("c"),
        "{order:?}"
    );
}

#[tokio::test]
async fn a_request_whose_deadline_passes_is_answered_then_and_never_runs() {
    let app = Arc::new(App::new(1));
    let model = open(
        &app,
        &onnx::slow(512, 100),
        "1",
        settings(&["--sessions", "1"]),
    )
    .await;
    let busy = {
        let (app, model) = (Arc::clone(&app), Arc::clone(&model));
        tokio::spawn(async move { run(&app, &model, rows(256, 512, 1.0)).await })
    };
    tokio::time::sleep(Duration::from_millis(30)).await;
    let start = Instant::now();
    let late = Request {
        deadline: Some(start + Duration::from_millis(20)),
        ..rows(1, 512, 1.0)
    };
    let error = run(&app, &model, late).await.unwrap_err();
    assert_eq!(error, RunError::Deadline);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(20), "{waited:?}");
    let long = busy.await.unwrap().unwrap();
    assert!(
        waited < long.ran,
        "{waited:?} is not the run's {:?}",
        long.ran
    );
    let runs = model.meter.statistics.runs();
    assert!(run(&app, &model, rows(1, 512, 1.0)).await.is_ok());
    assert_eq!(
        model.meter.statistics.runs(),
        runs + 1,
        "what was too late did not run"
    );
    let passed = Request {
        deadline: Some(start),
        ..rows(1, 512, 1.0)
    };
    assert_eq!(
        run(&app, &model, passed).await.unwrap_err(),
        RunError::Deadline
    );
    let text = app.metrics.render(&app).unwrap();
    assert!(text.contains(r#"reason="deadline"} 2"#), "{text}");
}

#[tokio::test]
async fn a_models_own_timeout_holds_for_requests_that_name_none() {
    let app = Arc::new(App::new(1));
    let mut settings = settings(&["--sessions", "1"]);
    settings.timeout = Some(Duration::from_millis(20));
    let model = open(&app, &onnx::slow(512, 100), "1", settings).await;
    let error = run(&app, &model, rows(256, 512, 1.0)).await.unwrap_err();
    assert_eq!(error, RunError::Deadline);
    let patient = Request {
        deadline: Some(Instant::now() + Duration::from_secs(60)),
        ..rows(256, 512, 1.0)
    };
    assert!(run(&app, &model, patient).await.is_ok());
}

fn first(outcome: &Outcome) -> f32 {
    match outcome.outputs[0].elements().unwrap() {
        View::Fp32(values) => values[0],
        other => panic!("{:?}", other.datatype()),
    }
}

#[tokio::test]
async fn versions_come_go_and_take_each_others_place_while_requests_run() {
    let app = Arc::new(App::new(1));
    let catalog = &app.catalog;
    let one = || settings(&["--sessions", "1"]);
    let startup = Arc::new(Startup::default());
    catalog.expect("m", "2", &startup);
    assert!(matches!(
        catalog.find("m", None),
        Err(FindError::NotReady { .. })
    ));
    let second = open(&app, &onnx::identity(onnx::FLOAT, &[-1, 2]), "2", one()).await;
    assert!(catalog.insert(Arc::clone(&second)).is_none());
    // Version 10 loads: the older one serves on, and a failed load changes nothing for it.
    catalog.expect("m", "10", &startup);
    assert_eq!(catalog.find("m", None).unwrap().version, "2");
    catalog.fail("m", "2", "a reload failed");
    assert_eq!(catalog.find("m", Some("2")).unwrap().version, "2");
    let tenth = open(&app, &onnx::slow(2, 1), "10", one()).await;
    catalog.insert(tenth);
    assert_eq!(catalog.find("m", None).unwrap().version, "10");
    assert_eq!(catalog.versions("m"), ["2", "10"]);
    assert_eq!(catalog.models().len(), 2);
    // Who holds a model that is taken away can still run it.
    let held = catalog.remove("m", "2").unwrap();
    assert!(Arc::ptr_eq(&held, &second));
    drop(second);
    assert!(matches!(
        catalog.find("m", Some("2")),
        Err(FindError::UnknownVersion { .. })
    ));
    let outcome = run(&app, &held, rows(3, 2, 7.0)).await.unwrap();
    assert_eq!((first(&outcome), outcome.batch), (7.0, 3));
    let again = open(&app, &onnx::identity(onnx::FLOAT, &[-1, 2]), "10", one()).await;
    assert_eq!(catalog.insert(again).unwrap().version, "10");
    let outcome = run(&app, &catalog.find("m", None).unwrap(), rows(1, 2, 5.0)).await;
    assert_eq!(first(&outcome.unwrap()), 5.0);
}

/// The threads of this process whose name starts with `session-`.
fn session_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("session-77")).count()
}

#[tokio::test]
async fn the_threads_of_a_model_end_with_it() {
    let app = App::new(1);
    let catalog = Catalog::default();
    let options = settings(&["--sessions", "80"]);
    let model = open(&app, &onnx::identity(onnx::FLOAT, &[-1, 2]), "1", options).await;
    catalog.insert(model);
    assert_eq!(session_threads(), 1);
    drop(catalog.remove("m", "1"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while session_threads() > 0 {
        assert!(Instant::now() < deadline, "the threads go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn outputs_come_in_the_order_in_which_they_are_wanted() {
    let app = App::new(1);
    let model = open(&app, &onnx::sum_and_difference(), "1", settings(&[])).await;
    let tensor = |value: f32| rows(1, 2, value).inputs.remove(0);
    let request = |outputs: Vec<usize>| Request {
        outputs,
        ..Request::new(vec![tensor(5.0), tensor(3.0)])
    };
    for (wanted, expected) in [
        (vec![], vec![8.0, 2.0]),
        (vec![1], vec![2.0]),
        (vec![1, 0, 1], vec![2.0, 8.0, 2.0]),
    ] {
        let outcome = run(&app, &model, request(wanted)).await.unwrap();
        let values: Vec<f32> = outcome
            .outputs
            .iter()
            .map(|output| match output.elements().unwrap() {
                View::Fp32(values) => values[0],
                other => panic!("{:?}", other.datatype()),
            })
            .collect();
        assert_eq!(values, expected);
    }
    let wrong = run(&app, &model, request(vec![2])).await.unwrap_err();
    assert!(matches!(wrong, RunError::Refused(_)), "{wrong}");
}

#[tokio::test]
async fn the_same_inputs_run_once_where_answers_are_kept_and_a_reload_starts_anew() {
    let mut app = App::new(1);
    app.cache = Some(ResponseCache::new(1 << 20));
    let first_load = open(&app, &onnx::slow(2, 1), "1", settings(&[])).await;
    let runs = |model: &Model| model.meter.statistics.runs();
    let kept = |outcome: &Outcome| outcome.batch == 0;
    let outcome = run(&app, &first_load, rows(1, 2, 1.0)).await.unwrap();
    assert!(!kept(&outcome));
    let again = run(&app, &first_load, rows(1, 2, 1.0)).await.unwrap();
    assert!(kept(&again));
    assert_eq!(first(&outcome), first(&again));
    assert!(!kept(
        &run(&app, &first_load, rows(1, 2, 2.0)).await.unwrap()
    ));
    assert_eq!(runs(&first_load), 2);
    let second_load = open(
        &app,
        &onnx::identity(onnx::FLOAT, &[-1, 2]),
        "1",
        settings(&[]),
    )
    .await;
    let other = run(&app, &second_load, rows(1, 2, 1.0)).await.unwrap();
    assert_eq!((kept(&other), first(&other)), (false, 1.0));
    let text = app.metrics.render(&app).unwrap();
    for line in [
        "ortolan_response_cache_hits_total{model=\"m\",version=\"1\"} 1",
        "ortolan_response_cache_misses_total{model=\"m\",version=\"1\"} 3",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(app.cache.as_ref().unwrap().bytes() > 0);
    let mut never = settings(&[]);
    never.cache = false;
    let model = open(&app, &onnx::slow(2, 1), "2", never).await;
    for _ in 0..2 {
        assert!(!kept(&run(&app, &model, rows(1, 2, 1.0)).await.unwrap()));
    }
}
