//! From a URI to a package, through the public interface, with real files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use ortolan_model::{
    Activation, Channels, Classification, Digest, Failure, ImageInput, Input, Layout, ModelConfig,
    Output, OwnConfig, Package, Phase, Pipeline, Progress, Reason, Request, Resize, obtain,
};

const YAML: &str = "\
pipeline:
  input: {kind: image, width: 224, height: 224, resize: fit, mean: [127], std: [128, 128, 128]}
  output: {kind: classification, labels: labels.txt, softmax: true, topK: 3}
";

#[derive(Default)]
struct Heard(Mutex<Vec<Phase>>);

impl Progress for Heard {
    fn phase(&self, phase: Phase) {
        self.0.lock().unwrap().push(phase);
    }
    fn bytes(&self, done: u64, total: Option<u64>) {
        assert!(total.is_none_or(|t| done <= t));
    }
}

/// A folder for the model and one for the cache.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(case.models()).unwrap();
        case
    }

    fn models(&self) -> std::path::PathBuf {
        self.dir.path().join("models")
    }

    fn put(&self, path: &str, content: &[u8]) -> &Self {
        let full = self.models().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, content).unwrap();
        self
    }

    fn request(&self, uri: &str) -> Request {
        Request::new(uri.parse().unwrap(), self.dir.path().join("cache"))
    }

    fn path(&self, name: &str) -> String {
        self.models().join(name).to_str().unwrap().to_owned()
    }

    /// `tar czf` of the models folder, elsewhere.
    fn packed(&self) -> String {
        let archive = self.dir.path().join("m.tar.gz");
        let ran = Command::new("tar")
            .args(["--sort=name", "-czf"])
            .arg(&archive)
            .arg("-C")
            .arg(self.models())
            .arg(".")
            .status();
        assert!(ran.unwrap().success());
        archive.to_str().unwrap().to_owned()
    }
}

async fn run(request: &Request) -> Result<Package, Failure> {
    let heard = Heard::default();
    let result = obtain(request, &heard).await;
    if let Ok(package) = &result {
        let phases: Vec<Phase> = package.timings.iter().map(|(p, _)| *p).collect();
        assert_eq!(phases, [Phase::Fetch, Phase::Verify, Phase::Unpack]);
        assert!(package.model_path.is_file());
    }
    result
}

async fn refused(request: &Request, reason: Reason, words: &[&str]) {
    let failure = run(request).await.unwrap_err();
    assert_eq!(failure.reason, reason, "{failure}");
    for word in words {
        assert!(
            failure.message.contains(word),
            "{word:?} is not in: {failure}"
        );
    }
}

fn expected_config() -> ModelConfig {
    ModelConfig {
        pipeline: Some(Pipeline {
            input: Input::Image(ImageInput {
                width: 224,
                height: 224,
                resize: Resize::Fit,
                short_side: None,
                channels: Channels::Rgb,
                layout: Layout::Nchw,
                mean: vec![127.0; 3],
                std: vec![128.0; 3],
            }),
            output: Output::Classification(Classification {
                tensor: None,
                labels: vec!["daisy".into(), "palace".into()],
                activation: Activation::Softmax,
                top_k: 3,
                threshold: None,
            }),
        }),
        ..ModelConfig::default()
    }
}

#[tokio::test]
async fn a_users_own_configuration_finds_its_files_in_the_package() {
    let (case, elsewhere) = (Case::new(), Case::new());
    elsewhere.put("own.yaml", YAML.replace("topK: 3", "topK: 2").as_bytes());
    case.put("m/model.onnx", b"onnx")
        .put("m/labels.txt", b"daisy\npalace\n");
    let archive = case.packed();
    let repository = case.path("repository");
    case.put("repository/a/1/model.onnx", b"onnx");
    let with = |uri: &str, own: OwnConfig| {
        let mut request = case.request(uri);
        request.model_config = Some(own);
        request
    };
    let file = |path: &str| OwnConfig::File(path.into());
    // As the operator writes it: JSON on one line.
    let inline = r#"{"pipeline":{"input":{"kind":"image","width":4,"height":4,"mean":[127.0]},"output":{"kind":"classification","labels":"labels.txt","topK":2}}}"#;
    let inline = OwnConfig::Inline(inline.to_owned());
    for own in [file(&elsewhere.path("own.yaml")), inline] {
        for uri in [case.path("m"), case.path("m/model.onnx"), archive.clone()] {
            let package = run(&with(&uri, own.clone())).await.unwrap();
            let Some(Output::Classification(classes)) = package.config.pipeline.map(|p| p.output)
            else {
                panic!("no classification")
            };
            assert_eq!((classes.labels.len(), classes.top_k), (2, 2), "{uri}");
        }
        let heard = Heard::default();
        let mut several = with(&repository, own);
        several.shape = ortolan_model::Shape::Repository;
        let failure = ortolan_model::discover(&several, &heard).await.unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfig);
        assert!(
            failure.message.starts_with("--model-config")
                && failure.message.contains("a repository of several models"),
            "{failure}"
        );
    }
    let wrong = OwnConfig::Inline(r#"{"pipline": {}}"#.to_owned());
    refused(
        &with(&case.path("m"), wrong),
        Reason::InvalidConfig,
        &["--model-config-inline: ", "pipline"],
    )
    .await;
    let missing = with(&case.path("m"), file("/none.yaml"));
    refused(
        &missing,
        Reason::InvalidConfig,
        &["/none.yaml does not exist, although --model-config names it"],
    )
    .await;
}

#[tokio::test]
async fn a_bare_file_is_used_where_it_lies_with_the_configuration_beside_it() {
    let case = Case::new();
    case.put("m.onnx", b"onnx")
        .put("model.yaml", YAML.as_bytes());
    case.put("labels.txt", b"daisy\npalace\n");
    for uri in [
        case.path("m.onnx"),
        format!("file://{}", case.path("m.onnx")),
    ] {
        let package = run(&case.request(&uri)).await.unwrap();
        assert_eq!(package.model_path, Path::new(&case.path("m.onnx")));
        assert_eq!(package.digest, Digest::of(b"onnx"));
        assert_eq!(package.bytes, 4);
        assert_eq!(package.config, expected_config());
    }
    assert!(!case.dir.path().join("cache").exists(), "nothing is copied");
}

#[tokio::test]
async fn a_directory_has_the_documented_digest() {
    let case = Case::new();
    case.put("net/m.onnx", b"onnx").put("net/w.bin", b"weights");
    let listed = format!(
        "{}  m.onnx\n{}  w.bin\n",
        Digest::of(b"onnx").hex(),
        Digest::of(b"weights").hex()
    );
    let package = run(&case.request(&case.path("net"))).await.unwrap();
    assert_eq!(package.digest, Digest::of(listed.as_bytes()));
    assert_eq!(package.bytes, 11);
    assert_eq!(package.config, ModelConfig::default());
}

#[tokio::test]
async fn an_archive_is_unpacked_into_the_cache_once() {
    let case = Case::new();
    case.put("net/m.onnx", b"onnx")
        .put("net/model.yaml", YAML.as_bytes());
    case.put("net/labels.txt", b"daisy\r\npalace\r\n");
    let archive = case.packed();
    let first = run(&case.request(&archive)).await.unwrap();
    assert_eq!(first.digest, Digest::of(&fs::read(&archive).unwrap()));
    assert!(
        first
            .model_path
            .starts_with(case.dir.path().join("cache/models"))
    );
    assert_eq!(first.config, expected_config());
    let before = fs::metadata(&first.model_path).unwrap().modified().unwrap();
    let second = run(&case.request(&archive)).await.unwrap();
    assert_eq!(second.model_path, first.model_path);
    assert_eq!(
        fs::metadata(&second.model_path)
            .unwrap()
            .modified()
            .unwrap(),
        before
    );
    // Somebody damages the cache: it is made anew.
    fs::write(&second.model_path, b"evil").unwrap();
    let third = run(&case.request(&archive)).await.unwrap();
    assert_eq!(fs::read(third.model_path).unwrap(), b"onnx");
}

#[tokio::test]
async fn a_claim_is_a_folder_below_the_root_and_links_do_not_leave_it() {
    let case = Case::new();
    case.put("claim-a/v1/m.onnx", b"onnx")
        .put("claim-b/secret.onnx", b"secret");
    let with_root = |uri: &str| {
        let mut request = case.request(uri);
        request.pvc_root = case.models();
        request
    };
    let package = run(&with_root("pvc://claim-a/v1/m.onnx")).await.unwrap();
    assert_eq!(package.digest, Digest::of(b"onnx"));
    let package = run(&with_root("pvc://claim-a")).await.unwrap();
    assert_eq!(
        package.model_path,
        Path::new(&case.path("claim-a/v1/m.onnx"))
    );
    std::os::unix::fs::symlink("../claim-b/secret.onnx", case.path("claim-a/link.onnx")).unwrap();
    refused(
        &with_root("pvc://claim-a/link.onnx"),
        Reason::AccessDenied,
        &["leads out of"],
    )
    .await;
    refused(
        &with_root("pvc://claim-c/m.onnx"),
        Reason::ModelNotFound,
        &["claim-c is not mounted"],
    )
    .await;
    refused(
        &with_root("pvc://claim-a/none.onnx"),
        Reason::ModelNotFound,
        &["does not exist"],
    )
    .await;
    // Neither may the labels: they are shown to whoever asks.
    case.put("claim-a/v1/model.yaml", YAML.as_bytes());
    std::os::unix::fs::symlink(
        "../../claim-b/secret.onnx",
        case.path("claim-a/v1/labels.txt"),
    )
    .unwrap();
    refused(
        &with_root("pvc://claim-a/v1/m.onnx"),
        Reason::AccessDenied,
        &["leads out of"],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_model_is_refused_with_what_it_is() {
    let case = Case::new();
    case.put("empty.onnx", b"")
        .put("page.onnx", b"<!DOCTYPE html><p>login")
        .put("m.zip", b"onnx");
    case.put("two/a.onnx", b"1")
        .put("two/b.onnx", b"2")
        .put("none/readme", b"x");
    let at = |name: &str| case.request(&case.path(name));
    refused(&at("empty.onnx"), Reason::InvalidModel, &["empty"]).await;
    refused(
        &at("page.onnx"),
        Reason::InvalidModel,
        &["an HTML page, not a model"],
    )
    .await;
    refused(&at("m.zip"), Reason::ArchiveRefused, &["ends in .zip"]).await;
    refused(
        &at("two"),
        Reason::ModelNotFound,
        &["2 models: a.onnx, b.onnx"],
    )
    .await;
    refused(
        &at("none"),
        Reason::ModelNotFound,
        &["no .onnx file", "readme"],
    )
    .await;
    refused(
        &at("gone.onnx"),
        Reason::ModelNotFound,
        &["gone.onnx does not exist"],
    )
    .await;
    refused(
        &at("../../dev/null"),
        Reason::ModelNotFound,
        &["does not exist"],
    )
    .await;
    refused(
        &case.request("/dev/null"),
        Reason::InvalidModel,
        &["neither a file"],
    )
    .await;
    let mut small = at("page.onnx");
    small.max_model_bytes = 3;
    refused(
        &small,
        Reason::ModelTooLarge,
        &["23 bytes", "the limit is 3 bytes"],
    )
    .await;
    let mut small = at("two");
    small.max_model_bytes = 1;
    refused(&small, Reason::ModelTooLarge, &["--max-model-bytes"]).await;
}

#[tokio::test]
async fn what_unpacks_to_more_than_the_scratch_space_is_no_model_that_is_too_large() {
    let case = Case::new();
    case.put("model.onnx", &[1; 5000]);
    let mut request = case.request(&case.packed());
    request.max_cache_bytes = Some(4000);
    let words = ["the archive", "unpacks to at least", "may take 4000 bytes"];
    refused(&request, Reason::OutOfSpace, &words).await;
    request.max_cache_bytes = Some(1 << 20);
    assert!(run(&request).await.is_ok());
    // What is used in place takes nothing of it.
    let mut bare = case.request(&case.path("model.onnx"));
    bare.max_cache_bytes = Some(1);
    assert!(run(&bare).await.is_ok());
}

#[tokio::test]
async fn an_archive_without_a_model_gets_no_place_in_the_cache() {
    let case = Case::new();
    case.put("readme", b"x");
    refused(
        &case.request(&case.packed()),
        Reason::ArchiveRefused,
        &["holds no .onnx file"],
    )
    .await;
    assert!(!case.dir.path().join("cache/models").exists());
    let left = fs::read_dir(case.dir.path().join("cache/work"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "only the lock file stays");
}

#[tokio::test]
async fn a_wrong_digest_names_both() {
    let case = Case::new();
    case.put("m.onnx", b"onnx");
    let mut request = case.request(&case.path("m.onnx"));
    let (found, wanted) = (Digest::of(b"onnx"), Digest::of(b"other"));
    request.expected_digest = Some(wanted);
    refused(
        &request,
        Reason::DigestMismatch,
        &[&found.to_string(), &wanted.to_string()],
    )
    .await;
    request.expected_digest = Some(found);
    assert!(run(&request).await.is_ok());
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_access_denied() {
    let case = Case::new();
    case.put("m.onnx", b"onnx");
    fs::set_permissions(case.path("m.onnx"), Permissions::from_mode(0o0)).unwrap();
    if fs::read(case.path("m.onnx")).is_ok() {
        println!("skipped: this user reads every file, whatever its mode");
        return;
    }
    let request = case.request(&case.path("m.onnx"));
    refused(&request, Reason::AccessDenied, &["permission denied"]).await;
}

#[tokio::test]
async fn credentials_for_a_file_are_not_ignored_in_silence() {
    let case = Case::new();
    case.put("m.onnx", b"onnx").put("keys/token", b"t");
    let mut request = case.request(&case.path("m.onnx"));
    request.credentials_dir = Some(case.models().join("keys"));
    refused(
        &request,
        Reason::InvalidConfig,
        &["remove credentialsSecretRef"],
    )
    .await;
}

/// A store that answers every request with `body`; counts them.
fn store(body: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4000]);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&body);
        }
    });
    (format!("http://{address}"), asked)
}

#[tokio::test]
async fn a_download_is_kept_by_digest_and_not_asked_for_again_when_the_digest_is_known() {
    let case = Case::new();
    let (url, asked) = store(b"onnx".to_vec());
    let mut request = case.request(&format!("{url}/m.onnx"));
    let first = run(&request).await.unwrap();
    assert_eq!(first.digest, Digest::of(b"onnx"));
    assert_eq!(first.bytes, 4);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Unknown digest: the store may hold something new.
    run(&request).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    request.expected_digest = Some(first.digest);
    let third = run(&request).await.unwrap();
    assert_eq!(
        (third.model_path.clone(), third.bytes),
        (first.model_path, 4)
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // A damaged file in the cache is no model.
    fs::write(&third.model_path, b"evil").unwrap();
    let fourth = run(&request).await.unwrap();
    assert_eq!(fs::read(fourth.model_path).unwrap(), b"onnx");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_archive_from_a_store_leaves_only_its_files() {
    let case = Case::new();
    case.put("m.onnx", b"onnx")
        .put("model.yaml", YAML.as_bytes());
    case.put("labels.txt", b"daisy\npalace\n");
    let archive = fs::read(case.packed()).unwrap();
    let (url, _) = store(archive.clone());
    let package = run(&case.request(&format!("{url}/m.tar.gz?sig=1")))
        .await
        .unwrap();
    assert_eq!(package.digest, Digest::of(&archive));
    assert_eq!(package.bytes, archive.len() as u64);
    assert_eq!(package.config, expected_config());
    let work = case.dir.path().join("cache/work");
    assert_eq!(
        fs::read_dir(work).unwrap().count(),
        1,
        "the download is gone"
    );
}

#[tokio::test]
async fn a_page_from_a_store_says_so_even_when_a_digest_was_expected() {
    let case = Case::new();
    let (url, _) = store(b"<html>please log in</html>".to_vec());
    let mut request = case.request(&format!("{url}/m.onnx"));
    request.expected_digest = Some(Digest::of(b"onnx"));
    refused(
        &request,
        Reason::InvalidModel,
        &["an HTML page, not a model"],
    )
    .await;
}

#[tokio::test]
async fn a_disk_that_fills_up_is_out_of_space_with_the_path_and_the_sizes() {
    let case = Case::new();
    let cache = case.dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&cache)
        .output()
        .is_ok_and(|out| out.status.success());
    if !mounted {
        println!("skipped: a tmpfs of one MiB needs the right to mount");
        return;
    }
    let (url, _) = store(vec![1; 3 << 20]);
    let known = run(&case.request(&format!("{url}/m.onnx"))).await;
    // Without a length it fills up on the way.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4000]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(&vec![1; 3 << 20]);
    });
    let unknown = run(&case.request(&format!("http://{address}/m.onnx"))).await;
    let _ = Command::new("umount").arg(&cache).status();
    for result in [known, unknown] {
        let failure = result.unwrap_err();
        assert_eq!(failure.reason, Reason::OutOfSpace, "{failure}");
        for words in ["cache/work/0", "are free"] {
            assert!(failure.message.contains(words), "{failure}");
        }
    }
}
