//! A body that ends with an error when nothing of it comes for a while.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// Wraps the body of a call that sends one message: one that breaks off in the middle would else be held as
/// long as its connection lives.
pub struct Patient<B> {
    body: B,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B> {
    /// At most `limit` between two parts.
    pub fn new(body: B, limit: Duration) -> Self {
        Self {
            body,
            limit,
            waiting: None,
        }
    }
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(cx));
        let status = Status::deadline_exceeded(format!(
            "nothing of the message came for {} seconds",
            limit.as_secs()
        ));
        Poll::Ready(Some(Err(status.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AnyBody;
    use futures::{StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_ends_and_a_slow_one_does_not() {
        let slow = stream::iter(0..5).then(|_| async {
            sleep(Duration::from_secs(20)).await;
            Ok::<_, BoxError>(Bytes::from_static(b"x"))
        });
        let body = Patient::new(AnyBody::from_stream(slow), Duration::from_secs(30));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "xxxxx");
        let broken =
            stream::iter([Ok::<_, BoxError>(Bytes::from_static(b"x"))]).chain(stream::pending());
        let body = Patient::new(AnyBody::from_stream(broken), Duration::from_secs(30));
        let error = body.collect().await.err().unwrap();
        let status = error.downcast_ref::<Status>().unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }
}
