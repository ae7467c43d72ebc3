//! SIGTERM and SIGINT, which a container's first process must handle itself.

use std::fmt;

use ortolan_model::{Failure, Reason};
use tokio::signal::unix::{self, SignalKind};

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: the kubelet's, at the start of a pod's end.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

/// Both signals.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// From now on both are ours.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| {
                Failure::new(Reason::Internal, format!("cannot handle signals: {error}"))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next SIGINT: a person who does not want to wait. A kubelet that was restarted sends its
    /// SIGTERM again, and that must not cut a drain short.
    pub async fn interrupt(&mut self) {
        self.interrupt.recv().await;
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}
