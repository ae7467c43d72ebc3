//! The source against a real server on loopback.

mod environment;
mod store;

use std::{path::Path, time::Duration};

use proptest::prelude::*;
use tokio::sync::mpsc;

use self::store::{Answer, Step, Store, answer, broken, first_byte, rest, whole};
use super::*;
use crate::{Phase, digest::Digest};

const MIB: usize = 1024 * 1024;

struct Silent;

impl Progress for Silent {
    fn phase(&self, _: Phase) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
}

fn quick() -> Patience {
    Patience {
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        answer: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        ..Patience::default()
    }
}

/// Bytes that differ everywhere, so that a wrong seam shows in the digest.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

async fn fetch_with(
    url: &Url,
    credentials: Option<Credentials>,
    limit: u64,
    patience: Patience,
) -> Result<(Vec<u8>, Digest), Failure> {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("download.part");
    let source = HttpSource::new(url.clone(), credentials, limit, patience)?;
    match source.fetch(&target, &Silent).await? {
        Fetched::Downloaded {
            file,
            bytes,
            digest,
        } => {
            let content = std::fs::read(file).unwrap();
            assert_eq!(content.len() as u64, bytes);
            assert_eq!(digest, Digest::of(&content));
            Ok((content, digest))
        }
        other => panic!("{other:?}"),
    }
}

async fn fetch(store: &Store) -> Result<Vec<u8>, Failure> {
    Ok(fetch_with(&store.url, None, u64::MAX, quick()).await?.0)
}

#[tokio::test]
async fn a_whole_file_comes_with_one_plain_request() {
    let body = content(3 * MIB);
    let served = body.clone();
    let store = Store::start(move |_, _| whole(&served)).await;
    assert_eq!(fetch(&store).await.unwrap(), body);
    let asked = store.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/m.onnx");
    assert_eq!(asked[0].header("accept-encoding"), Some("identity"));
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(asked[0].header("range"), None);
}

#[tokio::test]
async fn a_broken_transfer_is_taken_up_where_it_broke() {
    let body = content(200_000);
    let served = body.clone();
    let store = Store::start(move |n, asked| match n {
        0 => broken(&served, 70_000, &[("etag", "\"v1\"")]),
        _ => rest(&served, first_byte(asked).unwrap(), "\"v1\""),
    })
    .await;
    assert_eq!(fetch(&store).await.unwrap(), body);
    let asked = store.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("range"), Some("bytes=70000-"));
    assert_eq!(asked[1].header("if-range"), Some("\"v1\""));
}

#[tokio::test]
async fn without_a_validator_it_starts_over() {
    let body = content(200_000);
    let served = body.clone();
    let store = Store::start(move |n, _| match n {
        0 => broken(&served, 70_000, &[]),
        _ => whole(&served),
    })
    .await;
    assert_eq!(fetch(&store).await.unwrap(), body);
    assert_eq!(store.asked()[1].header("range"), None);
}

#[tokio::test]
async fn a_file_that_changes_between_two_parts_is_fetched_anew_and_never_mixed() {
    let (old, new) = (content(100_000), vec![7; 120_000]);
    // As RFC 9110 wants it, and as a store does that ignores If-Range.
    for honest in [true, false] {
        let (old, new, want) = (old.clone(), new.clone(), new.clone());
        let store = Store::start(move |n, asked| match (n, first_byte(asked)) {
            (0, _) => broken(&old, 50_000, &[("etag", "\"v1\"")]),
            (_, Some(first)) if !honest => rest(&new, first, "\"v2\""),
            _ => whole(&new),
        })
        .await;
        assert_eq!(fetch(&store).await.unwrap(), want);
    }
}

#[tokio::test]
async fn a_range_that_is_not_satisfiable_any_more_starts_over() {
    let (old, new) = (content(100_000), content(40_000));
    let want = new.clone();
    let store = Store::start(move |n, asked| match (n, first_byte(asked)) {
        (0, _) => broken(&old, 50_000, &[("etag", "\"v1\"")]),
        (_, Some(_)) => answer("416 Range Not Satisfiable", &[("content-length", "0")], b""),
        _ => whole(&new),
    })
    .await;
    assert_eq!(fetch(&store).await.unwrap(), want);
}

#[tokio::test]
async fn errors_of_the_store_are_tried_again_and_pass() {
    let store = Store::start(|n, _| match n {
        0 => answer("500 Internal Server Error", &[("content-length", "0")], b""),
        1 => answer("503 Service Unavailable", &[("content-length", "0")], b""),
        2 => answer(
            "429 Too Many Requests",
            &[("content-length", "0"), ("retry-after", "0")],
            b"",
        ),
        3 => vec![],
        _ => whole(b"onnx"),
    })
    .await;
    assert_eq!(fetch(&store).await.unwrap(), b"onnx");
    assert_eq!(store.asked().len(), 5);
}

#[tokio::test]
async fn a_store_that_stays_down_is_given_up_after_five_tries() {
    let store =
        Store::start(|_, _| answer("502 Bad Gateway", &[("content-length", "0")], b"")).await;
    let failure = fetch(&store).await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreUnavailable);
    assert!(
        failure
            .message
            .contains("502 Bad Gateway; gave up after 5 tries"),
        "{failure}"
    );
    assert_eq!(store.asked().len(), 5);
}

#[tokio::test]
async fn a_pause_longer_than_our_patience_is_not_waited_for() {
    let down = [("content-length", "0"), ("retry-after", "3000")];
    let store = Store::start(move |_, _| answer("503 Service Unavailable", &down, b"")).await;
    let failure = fetch(&store).await.unwrap_err();
    assert!(failure.message.contains("gave up after 1 try"), "{failure}");
}

#[tokio::test]
async fn a_content_length_that_is_never_reached_is_no_model() {
    let store = Store::start(|_, asked| match first_byte(asked) {
        None => broken(&[1; 1000], 600, &[("etag", "\"v1\"")]),
        Some(_) => answer(
            "206 Partial Content",
            &[
                ("content-length", "400"),
                ("content-range", "bytes 600-999/1000"),
                ("etag", "\"v1\""),
            ],
            b"",
        ),
    })
    .await;
    let failure = fetch(&store).await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreUnavailable);
    assert!(
        failure.message.contains("broke at byte 600 of 1000"),
        "{failure}"
    );
    assert_eq!(store.asked().len(), 5);
}

#[tokio::test]
async fn a_part_that_ends_early_without_a_length_is_asked_for_again() {
    let body = content(1000);
    let served = body.clone();
    let store = Store::start(move |n, asked| match (n, first_byte(asked)) {
        (0, _) => broken(&served, 300, &[("etag", "\"v1\"")]),
        // Closed, not counted: nothing but the total shows that it is short.
        (1, _) => answer(
            "206 Partial Content",
            &[("content-range", "bytes 300-999/1000"), ("etag", "\"v1\"")],
            &served[300..500],
        ),
        (_, first) => rest(&served, first.unwrap(), "\"v1\""),
    })
    .await;
    assert_eq!(fetch(&store).await.unwrap(), body);
    assert_eq!(store.asked()[2].header("range"), Some("bytes=500-"));
}

#[tokio::test]
async fn a_transfer_that_gets_on_is_not_given_up_however_often_it_breaks() {
    let body = content(9 * MIB);
    let served = body.clone();
    let store = Store::start(move |_, asked| {
        let first = first_byte(asked).unwrap_or(0);
        let mut whole = if first == 0 {
            whole(&served)
        } else {
            rest(&served, first, "\"v1\"")
        };
        if let [Step::Send(bytes)] = &mut whole[..] {
            bytes.truncate(MIB + 2000);
        }
        whole
    })
    .await;
    assert_eq!(fetch(&store).await.unwrap(), body);
    assert!(store.asked().len() >= 9);
}

#[tokio::test]
async fn silence_in_the_middle_and_at_the_start_is_tried_again() {
    let body = content(1000);
    let served = body.clone();
    let store = Store::start(move |n, asked| match n {
        0 => vec![Step::Wait(Duration::from_secs(60))],
        1 => {
            let mut part = broken(&served, 400, &[("etag", "\"v1\"")]);
            part.push(Step::Wait(Duration::from_secs(60)));
            part
        }
        _ => rest(&served, first_byte(asked).unwrap(), "\"v1\""),
    })
    .await;
    let short = Duration::from_millis(150);
    let patience = Patience {
        answer: short,
        idle: short,
        ..quick()
    };
    let (got, _) = fetch_with(&store.url, None, u64::MAX, patience)
        .await
        .unwrap();
    assert_eq!(got, body);
}

#[tokio::test]
async fn a_slow_store_is_waited_for_as_long_as_bytes_come() {
    let body = content(1000);
    let served = body.clone();
    let store = Store::start(move |_, _| {
        let mut slow = broken(&served, 0, &[]);
        for piece in served.chunks(100) {
            slow.push(Step::Wait(Duration::from_millis(60)));
            slow.push(Step::Send(piece.to_vec()));
        }
        slow
    })
    .await;
    // The whole takes 600 ms, longer than the patience with one silence.
    let patience = Patience {
        idle: Duration::from_millis(400),
        tries: 1,
        ..quick()
    };
    let (got, _) = fetch_with(&store.url, None, u64::MAX, patience)
        .await
        .unwrap();
    assert_eq!(got, body);
}

#[tokio::test]
async fn the_size_limit_holds_for_what_is_promised_and_for_what_comes() {
    let promised = Store::start(|_, _| whole(&[0; 1001])).await;
    let streamed = Store::start(|_, _| answer("200 OK", &[], &[0; 1001])).await;
    for store in [promised, streamed] {
        let failure = fetch_with(&store.url, None, 1000, quick())
            .await
            .unwrap_err();
        assert_eq!(failure.reason, Reason::ModelTooLarge);
        assert!(
            failure.message.contains("the limit is 1000 bytes"),
            "{failure}"
        );
        assert_eq!(store.asked().len(), 1);
    }
    let fits = Store::start(|_, _| whole(&[0; 1000])).await;
    assert!(fetch_with(&fits.url, None, 1000, quick()).await.is_ok());
}

#[tokio::test]
async fn a_file_larger_than_the_disk_is_refused_before_it_is_fetched() {
    let huge = [("content-length", "9000000000000000000")];
    let store = Store::start(move |_, _| answer("200 OK", &huge, b"begin")).await;
    let failure = fetch(&store).await.unwrap_err();
    assert_eq!(failure.reason, Reason::OutOfSpace);
    assert!(failure.message.contains("are free"), "{failure}");
}

#[tokio::test]
async fn answers_that_will_not_change_end_at_once_with_their_reason() {
    let cases = [
        ("404 Not Found", Reason::ModelNotFound, "does not exist"),
        ("410 Gone", Reason::ModelNotFound, "does not exist"),
        (
            "401 Unauthorized",
            Reason::AccessDenied,
            "no credentials were sent",
        ),
        (
            "403 Forbidden",
            Reason::AccessDenied,
            "credentialsSecretRef",
        ),
        (
            "400 Bad Request",
            Reason::StoreUnavailable,
            "200 was expected",
        ),
        (
            "204 No Content",
            Reason::StoreUnavailable,
            "200 was expected",
        ),
    ];
    for (status, reason, words) in cases {
        let store = Store::start(move |_, _| answer(status, &[("content-length", "0")], b"")).await;
        let mut url = store.url.clone();
        url.set_query(Some("X-Amz-Signature=s3cret"));
        let failure = fetch_with(&url, None, u64::MAX, quick()).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(!failure.message.contains("s3cret"), "{failure}");
        assert_eq!(store.asked().len(), 1);
    }
}

fn redirect_to(url: &Url) -> Answer {
    answer(
        "302 Found",
        &[("location", url.as_str()), ("content-length", "0")],
        b"",
    )
}

#[tokio::test]
async fn credentials_stay_with_the_origin_they_are_for() {
    let token = Credentials::Bearer("s3cret".into());
    // home /m.onnx → home /again → other → home /back
    let (tell, mut told) = mpsc::unbounded_channel::<Url>();
    let other_home = std::sync::Arc::new(std::sync::Mutex::new(None::<Url>));
    let back = std::sync::Arc::clone(&other_home);
    let other = Store::start(move |_, _| redirect_to(back.lock().unwrap().as_ref().unwrap())).await;
    let elsewhere = other.url.clone();
    let home = Store::start(move |n, asked| match n {
        0 => answer(
            "307 Temporary Redirect",
            &[("location", "/again"), ("content-length", "0")],
            b"",
        ),
        1 => {
            let _ = tell.send(elsewhere.clone());
            redirect_to(&elsewhere)
        }
        _ => {
            assert_eq!(asked.target, "/back");
            whole(b"onnx")
        }
    })
    .await;
    *other_home.lock().unwrap() = Some(home.url.join("/back").unwrap());
    let (got, _) = fetch_with(&home.url, Some(token), u64::MAX, quick())
        .await
        .unwrap();
    assert_eq!(got, b"onnx");
    assert_eq!(told.recv().await, Some(other.url.clone()));
    let sent: Vec<bool> = home
        .asked()
        .iter()
        .map(|a| a.header("authorization").is_some())
        .collect();
    assert_eq!(
        sent,
        [true, true, false],
        "not again after another origin chose the way"
    );
    assert_eq!(other.asked()[0].header("authorization"), None);
    assert_eq!(
        home.asked()[0].header("authorization"),
        Some("Bearer s3cret")
    );
}

#[tokio::test]
async fn a_user_name_and_a_password_are_sent_as_basic() {
    let store = Store::start(|_, _| whole(b"onnx")).await;
    let pair = Credentials::Basic {
        username: "ann".into(),
        password: "pä ss".into(),
    };
    fetch_with(&store.url, Some(pair), u64::MAX, quick())
        .await
        .unwrap();
    assert_eq!(
        store.asked()[0].header("authorization"),
        Some("Basic YW5uOnDDpCBzcw==")
    );
}

#[tokio::test]
async fn redirects_that_lead_nowhere_end_with_a_sentence() {
    let cases = [
        ("/m.onnx", "redirects more than 10 times"),
        ("ftp://127.0.0.1/m.onnx", "not to an http or https address"),
        ("http://", "not to an http or https address"),
    ];
    for (location, words) in cases {
        let headers = [("location", location), ("content-length", "0")];
        let store = Store::start(move |_, _| answer("301 Moved Permanently", &headers, b"")).await;
        let failure = fetch(&store).await.unwrap_err();
        assert_eq!(failure.reason, Reason::StoreUnavailable);
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_and_a_host_that_is_not_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let patience = Patience {
        tries: 2,
        ..quick()
    };
    let url = Url::parse(&format!("http://{address}/m.onnx")).unwrap();
    let failure = fetch_with(&url, None, u64::MAX, patience)
        .await
        .unwrap_err();
    assert_eq!(failure.reason, Reason::StoreUnavailable);
    assert!(
        failure.message.contains("refuses connections on port"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_not_the_stores_fault() {
    let store = Store::start(|_, _| whole(b"onnx")).await;
    let source = HttpSource::new(store.url.clone(), None, u64::MAX, quick()).unwrap();
    let failure = source
        .fetch(Path::new("/proc/none/x"), &Silent)
        .await
        .unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfig);
    assert!(failure.message.contains("--cache-dir"), "{failure}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_answer_makes_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), headed: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::start(move |_, _| {
                let head: &[u8] = if headed { b"HTTP/1.1 200 OK\r\n" } else { b"" };
                vec![Step::Send([head, &noise].concat())]
            })
            .await;
            let patience = Patience { tries: 2, ..quick() };
            let _ = fetch_with(&store.url, None, 10_000, patience).await;
        });
    }
}
