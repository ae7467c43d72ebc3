use futures::{FutureExt, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};

use super::*;

type Parts = Vec<Result<Frame<Bytes>, std::io::Error>>;

fn rules(kept: usize, memory: usize) -> Rules {
    Rules {
        longest: Some(100),
        patience: Some((Duration::from_secs(30), Alarm::default())),
        kept,
        memory: Arc::new(Memory::new(memory)),
    }
}

fn body(
    parts: &[&'static str],
) -> impl Body<Data = Bytes, Error = std::io::Error> + Send + Unpin + use<> {
    let parts: Parts = parts
        .iter()
        .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))))
        .collect();
    StreamBody::new(stream::iter(parts))
}

async fn sent(outgoing: Outgoing) -> Result<String, Fault> {
    let bytes = outgoing.collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_body_that_fits_is_sent_as_often_as_needed() {
    let rules = rules(10, 10);
    let memory = Arc::clone(&rules.memory);
    let source = Source::new(body(&["abc", "def"]), rules);
    let mut broken_off = source.outgoing();
    broken_off.frame().await.unwrap().unwrap();
    assert!(source.can_replay() && !source.is_sent());
    assert_eq!(sent(source.outgoing()).await.as_deref(), Ok("abcdef"));
    assert!(source.is_sent());
    assert_eq!(sent(source.outgoing()).await.as_deref(), Ok("abcdef"));
    assert_eq!(
        broken_off.frame().await.unwrap().err(),
        Some(Fault::Superseded)
    );
    assert_eq!(memory.used(), 6);
    source.commit();
    assert_eq!(memory.used(), 0);
    assert!(!source.can_replay());
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_streamed_whole_and_once() {
    for rules in [rules(4, 100), rules(100, 4)] {
        let memory = Arc::clone(&rules.memory);
        let source = Source::new(body(&["abc", "def", "ghi"]), rules);
        assert!(source.can_replay(), "nothing was sent yet");
        assert_eq!(sent(source.outgoing()).await.as_deref(), Ok("abcdefghi"));
        assert!(!source.can_replay());
        assert_eq!(memory.used(), 0);
    }
}

#[tokio::test]
async fn what_was_read_ahead_is_sent_once_even_if_it_did_not_fit() {
    for (kept, replays) in [(100, true), (4, false), (0, false)] {
        let source = Source::new(body(&["abc", "def", "ghi"]), rules(kept, 100));
        assert!(
            source.read_ahead().now_or_never().is_none(),
            "waits with the request"
        );
        assert!(source.can_replay());
        assert_eq!(sent(source.outgoing()).await.as_deref(), Ok("abcdefghi"));
        assert_eq!(source.can_replay(), replays, "{kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_or_stops_is_a_fault_of_its_sender() {
    let long = Source::new(body(&["x".repeat(101).leak()]), rules(10, 10));
    assert_eq!(sent(long.outgoing()).await, Err(Fault::TooLarge(100)));
    assert_eq!(long.fault(), Some(Fault::TooLarge(100)));
    let halted = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(
        b"x",
    )))])
    .chain(stream::pending());
    let halted = Source::new(StreamBody::new(halted), rules(10, 10));
    let stalled = Fault::Stalled(Duration::from_secs(30));
    assert_eq!(halted.read_ahead().await, stalled);
    assert_eq!(
        sent(halted.outgoing()).await,
        Err(stalled),
        "to whoever asks next, too"
    );
    let broken: Parts = vec![Err(std::io::Error::other("reset"))];
    let broken = Source::new(StreamBody::new(stream::iter(broken)), rules(10, 10));
    assert_eq!(broken.read_ahead().await, Fault::Left);
}

#[tokio::test]
async fn no_body_needs_nothing() {
    let none = Source::new(http_body_util::Empty::<Bytes>::new(), rules(10, 10));
    assert!(none.can_replay() && none.outgoing().is_end_stream());
    assert_eq!(sent(none.outgoing()).await.as_deref(), Ok(""));
}

#[tokio::test]
async fn trailers_go_with_the_body_each_time() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let parts: Parts = vec![
        Ok(Frame::data(Bytes::from_static(b"a"))),
        Ok(Frame::trailers(trailers)),
    ];
    let source = Source::new(StreamBody::new(stream::iter(parts)), rules(10, 10));
    for _ in 0..2 {
        let collected = source.outgoing().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
    }
}
