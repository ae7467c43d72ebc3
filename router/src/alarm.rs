//! Deadlines that are hardly ever reached: many of them, one after the other, with one timer of the runtime.
//!
//! A request has a deadline for its head, for its answer, and for the next part of it, and each is over within
//! microseconds. A timer of the runtime for each is entered in its wheel and taken out again, under a lock. An alarm
//! leaves the timer where it is: while the next deadline is a later one it is only compared; a timer that goes off early
//! is then set to the deadline that holds.
//!
//! Invariants: an alarm is late by no more than the runtime's timers are; it is waited for by one task at a time, and for
//! one deadline at a time.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Deadlines that follow one another. Clones are the same alarm.
#[derive(Clone, Debug, Default)]
pub struct Alarm(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

/// The alarms of a connection that has one request at a time, or of one request where it has many.
#[derive(Clone, Debug, Default)]
pub struct Alarms {
    /// For heads and answers, in the connection's task.
    pub answer: Alarm,
    /// For the request's body, which is read by who sends it on.
    pub upload: Alarm,
}

impl Alarm {
    /// Ready when the deadline has passed.
    pub fn poll(&self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// What comes of the work; `None` when it is not done by the deadline.
    pub async fn within<F: Future>(
        &self,
        deadline: Instant,
        mut work: Pin<&mut F>,
    ) -> Option<F::Output> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll(deadline, cx).map(|()| None),
        })
        .await
    }
}

/// A deadline of hyper's own.
struct Until {
    alarm: Alarm,
    deadline: Instant,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(self.deadline, cx)
    }
}

impl hyper::rt::Sleep for Until {}

impl hyper::rt::Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Until {
            alarm: self.clone(),
            deadline: deadline.into(),
        })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin};

    use hyper::rt::Timer as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn waited(alarm: &Alarm, wait: Duration) -> Duration {
        let start = Instant::now();
        let late = alarm.within(start + wait, pin!(pending::<()>())).await;
        assert!(late.is_none());
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept_whichever_came_before_it() {
        let alarm = Alarm::default();
        for seconds in [5, 1, 1, 30, 2, 0, 60, 3] {
            let took = waited(&alarm, SECOND * seconds).await;
            let expected = SECOND * seconds;
            assert!(
                took >= expected && took <= expected + Duration::from_millis(2),
                "{seconds}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_after_one_that_was_given_up_is_kept_too() {
        for (given_up, then) in [(10, 30), (30, 10), (10, 10)] {
            let alarm = Alarm::default();
            let start = Instant::now();
            // Long enough for the timer to be set, and over long before it.
            let work = pin!(tokio::time::sleep(SECOND));
            let done = alarm.within(start + SECOND * given_up, work).await;
            assert!(done.is_some());
            let took = waited(&alarm, SECOND * then).await;
            assert_eq!(took.as_secs(), u64::from(then), "{given_up} {then}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_done_in_time_needs_no_alarm() {
        let alarm = Alarm::default();
        let now = Instant::now();
        assert_eq!(alarm.within(now, pin!(async { 7 })).await, Some(7));
        assert!(alarm.0.lock().unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn hyper_is_woken_at_its_deadline() {
        let alarm = Alarm::default();
        let start = Instant::now();
        alarm.sleep(SECOND * 3).await;
        alarm.sleep_until((start + SECOND * 5).into()).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
