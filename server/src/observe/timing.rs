//! How long the runs of one request took, told to whoever asks for it with [`ASKS`]: a router, which compares two revisions
//! of a model by it. Time in the queue is no part of it, and an answer without a run (an error, one from the cache) tells
//! nothing. A batch's time counts for each of its requests.

use std::{cell::Cell, future::Future, time::Duration};

use http::HeaderName;

/// In a request, with any value.
pub const ASKS: HeaderName = HeaderName::from_static("x-ortolan-timing");
/// In an answer: the time inside ONNX Runtime in microseconds, of several runs together.
pub const RAN: HeaderName = HeaderName::from_static("x-ortolan-run-us");

tokio::task_local! {
    static RUNS: Cell<Option<Duration>>;
}

/// Runs a request's work. Answers how long its runs took, if there were any.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Option<Duration>) {
    let work = async {
        let done = work.await;
        (done, RUNS.with(Cell::get))
    };
    RUNS.scope(Cell::new(None), work).await
}

/// The task's request ran.
pub(crate) fn ran(took: Duration) {
    // Nobody asked.
    let _ = RUNS.try_with(|runs| runs.set(Some(runs.get().unwrap_or_default() + took)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_runs_of_a_request_are_added_up_and_those_of_others_are_not() {
        const MS: Duration = Duration::from_millis(1);
        let one = timed(async {
            ran(MS);
            tokio::task::yield_now().await;
            ran(2 * MS);
            "done"
        });
        let other = timed(async { tokio::task::yield_now().await });
        ran(7 * MS);
        let ((done, took), ((), none)) = tokio::join!(one, other);
        assert_eq!((done, took, none), ("done", Some(3 * MS), None));
    }
}
