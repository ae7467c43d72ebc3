//! The rest of a body that nobody reads: an answer may be ready from the head of a request alone.
//!
//! ```text
//!  head ─► answer ──────────────────────────► the client has its sentence
//!  body ─► Lingering ─► dropped unread ─► read and thrown away, within bounds ─► the next request
//! ```
//!
//! Over HTTP/1.1 a connection that is closed while its client still writes is reset, and a reset throws away what the
//! client has not read yet: it sees a broken pipe in place of the sentence. So the answer goes out at once and what comes
//! of the body afterwards is read and dropped, as nginx's `lingering_close` does. Once all of it was read the connection
//! takes the next request. Bounds: [`BYTES`] and [`LONGEST`] in all, [`PAUSE`] between two parts; beyond them the
//! connection is closed. Over HTTP/2 a stream's rest is refused without harm to its answer, and nothing is read.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{runtime::Handle, time::timeout};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is thrown away of one body: sixteen times as much as a body may have unless the options say otherwise. A client
/// could send as much in good requests.
const BYTES: u64 = 1 << 30;
/// How long one body is read to be thrown away: 100 Mbit/s bring more than 300 MB in that time.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two parts: a client that has read its answer and sends no more is not waited for.
const PAUSE: Duration = Duration::from_secs(5);

/// A body whose rest is thrown away when it is dropped before its end.
pub struct Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    /// There until it is dropped.
    body: Option<B>,
    lingers: bool,
}

impl<B> Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    /// The request with such a body.
    pub fn of(request: Request<B>) -> Request<Self> {
        let lingers = request.version() < Version::HTTP_2
            && !request.body().is_end_stream()
            && !waits(request.headers());
        request.map(|body| Self {
            lingers,
            body: Some(body),
        })
    }
}

/// Whether a client waits to be told to send its body: it was not told so, and does not send it.
fn waits(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// Reads what comes of a body and throws it away.
async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut left = BYTES;
    let all = async {
        while let Ok(Some(Ok(frame))) = timeout(PAUSE, body.frame()).await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(rest) = left.checked_sub(length) else {
                return;
            };
            left = rest;
        }
    };
    // A client that is slower than that is cut off: it had its answer long ago.
    let _ = timeout(LONGEST, all).await;
}

impl<B> Drop for Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && self.lingers
            && !body.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(discard(body));
        }
    }
}

impl<B> Body for Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.lingers = false;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::{Stream, StreamExt, stream};
    use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
    use tokio::time::{Instant, sleep};

    use super::*;

    type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

    fn streamed(parts: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> AnyBody {
        StreamBody::new(parts.map(|part| part.map(Frame::data))).boxed_unsync()
    }

    /// Kilobytes, each after `pause`, and how many were taken.
    fn slow(
        pause: Duration,
    ) -> (
        impl Stream<Item = Result<Bytes, BoxError>>,
        Arc<AtomicUsize>,
    ) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let parts = stream::repeat(()).then(move |()| {
            let counted = Arc::clone(&counted);
            async move {
                sleep(pause).await;
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(Bytes::from_static(&[0; 1024]))
            }
        });
        (parts, taken)
    }

    fn full(text: &'static str) -> AnyBody {
        Full::from(text)
            .map_err(|never| match never {})
            .boxed_unsync()
    }

    fn post(version: Version, body: AnyBody) -> Request<AnyBody> {
        let request = Request::post("/").version(version);
        request.body(body).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_too_slowly_or_for_too_long_is_not_waited_for() {
        for (pause, expected) in [(Duration::from_secs(1), LONGEST), (PAUSE * 2, PAUSE)] {
            let (parts, taken) = slow(pause);
            let start = Instant::now();
            discard(streamed(parts)).await;
            let took = start.elapsed();
            assert!(
                took >= expected && took < expected * 2,
                "{pause:?}: {took:?}"
            );
            let most = (LONGEST.as_secs() / pause.as_secs()) as usize;
            assert!(taken.load(Ordering::Relaxed) <= most);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_thrown_away_than_the_bound() {
        let part = Bytes::from(vec![0; 64 << 20]);
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let parts = stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BoxError>(part.clone())
        });
        discard(streamed(parts)).await;
        assert_eq!(
            taken.load(Ordering::Relaxed),
            17,
            "the one that was too much, too"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_dropped_unread_is_read_on_over_http_1_unless_its_client_waits() {
        let expecting = |mut request: Request<AnyBody>| {
            let value = "100-continue".parse().unwrap();
            request.headers_mut().insert(header::EXPECT, value);
            request
        };
        for (version, waits, is_read) in [
            (Version::HTTP_11, false, true),
            (Version::HTTP_10, false, true),
            (Version::HTTP_11, true, false),
            (Version::HTTP_2, false, false),
        ] {
            let (parts, taken) = slow(Duration::from_millis(100));
            let mut request = post(version, streamed(parts.take(20)));
            if waits {
                request = expecting(request);
            }
            drop(Lingering::of(request));
            sleep(Duration::from_secs(10)).await;
            let expected = if is_read { 20 } else { 0 };
            assert_eq!(
                taken.load(Ordering::Relaxed),
                expected,
                "{version:?} {waits}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_that_is_read_is_as_it_was() {
        let request = Lingering::of(post(Version::HTTP_11, full("abc")));
        assert_eq!(request.body().size_hint().exact(), Some(3));
        let mut body = request.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "abc");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }
}
