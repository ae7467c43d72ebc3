//! Waits until a point in time to the microsecond. The runtime's own timer counts milliseconds, which in an open
//! loop would all be found again in the measured latency.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

/// A timer of the kernel: a file descriptor that can be read when the time has come. To the runtime that is what
/// the reading end of a pipe is.
#[derive(Debug)]
pub struct Timer(Receiver);

impl Timer {
    /// Needs a runtime with I/O.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Self(Receiver::from_owned_fd_unchecked(fd)?))
    }

    /// Returns at `due` or as soon after as the kernel lets us run; at once when it has passed.
    pub async fn until(&mut self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            }),
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        let mut ticks = [0; 8];
        self.0.read_exact(&mut ticks).await?;
        Ok(())
    }
}

/// How late `now` is after `due`.
#[must_use]
pub fn late(due: Instant) -> Duration {
    Instant::now().saturating_duration_since(due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_until_the_time_and_not_at_all_when_that_has_passed() {
        let mut timer = Timer::new().unwrap();
        let start = Instant::now();
        for step in 1..=20 {
            let due = start + Duration::from_micros(step * 300);
            timer.until(due).await.unwrap();
            assert!(Instant::now() >= due);
        }
        timer.until(start).await.unwrap();
    }
}
