//! `http:` and `https:`: one file, streamed to disk.
//!
//! A transfer that breaks is taken up where it broke, if the store proves that the file is still
//! the same ([`resume`]); otherwise it starts over. Patience: five tries in a row that bring less
//! than 1 MiB each, or 60 s of them, end in [`Reason::StoreUnavailable`]; a transfer that gets on
//! is never given up. Credentials go to the URI's own origin only, never to where it redirects.
//!
//! Input: a URL, credentials, a size limit. Output: a whole file with its digest, computed while
//! the bytes go by. Memory: at most [`sink::QUEUE`] chunks.

mod client;
mod resume;
mod sink;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod verdict;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use url::Url;

pub use self::client::{Connector, connector};
use self::{
    client::Client,
    resume::{Partial, Start},
    sink::Sink,
    verdict::Trouble,
};
use super::{Fetched, Source, credentials::Credentials};
use crate::{
    Progress, disk,
    failure::{Failure, Reason},
    limit::Limit,
    uri::shown,
};

/// Less than this is no progress: a store that answers a few bytes and breaks is not waited for.
const GETS_ON: u64 = 1024 * 1024;
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// How long a store is waited for. The defaults are documented (`docs/models.md`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Tries in a row that do not get on.
    pub(crate) tries: u32,
    /// The time in which such tries may begin.
    pub(crate) window: Duration,
    /// The pause after the first; it doubles up to `longest_pause`.
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
    /// From the request to the answer's headers.
    pub(crate) answer: Duration,
    /// Between two pieces of the body.
    pub(crate) idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            window: Duration::from_secs(60),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(30),
        }
    }
}

/// One URL.
pub(crate) struct HttpSource {
    client: Client,
    url: Url,
    limit: Limit,
    patience: Patience,
}

impl HttpSource {
    pub(crate) fn new(
        url: Url,
        credentials: Option<Credentials>,
        limit: impl Into<Limit>,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let client = Client::new(credentials, patience.answer)?;
        Ok(Self {
            client,
            url,
            limit: limit.into(),
            patience,
        })
    }

    /// One request and as much of its body as comes.
    async fn attempt(
        &self,
        target: &Path,
        sink: &mut Sink,
        partial: &mut Partial,
        progress: &dyn Progress,
    ) -> Result<(), Trouble> {
        let (response, from) = self.client.get(&self.url, &partial.conditions()).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            StatusCode::RANGE_NOT_SATISFIABLE if partial.offset() > 0 => {
                partial.forget();
                return Err(Trouble::again(
                    "the file has changed while it was being fetched",
                ));
            }
            status => {
                let sent = self.client.sends_credentials();
                return Err(verdict::of_status(
                    &self.url,
                    &from,
                    status,
                    sent,
                    response.headers(),
                ));
            }
        }
        let start = partial.begin(response.status(), response.headers());
        match start {
            Start::Resume => {}
            Start::FromZero => self.restart(target, sink, partial).await?,
            Start::Mismatch => {
                partial.forget();
                return Err(Trouble::again(
                    "the file has changed while it was being fetched",
                ));
            }
        }
        self.check_size(target, partial)?;
        self.body(response, target, sink, partial, progress).await?;
        partial.check_whole()
    }

    async fn restart(
        &self,
        target: &Path,
        sink: &mut Sink,
        partial: &Partial,
    ) -> Result<(), Trouble> {
        sink.restart()
            .await
            .map_err(|e| self.write_failure(target, partial, &e))
    }

    fn check_size(&self, target: &Path, partial: &Partial) -> Result<(), Trouble> {
        let Some(total) = partial.total() else {
            return Ok(());
        };
        self.ensure_allowed(total)?;
        let folder = target.parent().unwrap_or(Path::new("."));
        disk::ensure_room(folder, total.saturating_sub(partial.offset())).map_err(Trouble::Fatal)
    }

    async fn body(
        &self,
        response: Response<Incoming>,
        target: &Path,
        sink: &mut Sink,
        partial: &mut Partial,
        progress: &dyn Progress,
    ) -> Result<(), Trouble> {
        let mut body = response.into_body();
        let mut reported = Instant::now();
        progress.bytes(partial.offset(), partial.total());
        loop {
            let frame = match tokio::time::timeout(self.patience.idle, body.frame()).await {
                Err(_) => {
                    return Err(Trouble::again(format!(
                        "nothing came for {} s at byte {}",
                        self.patience.idle.as_secs_f32(),
                        partial.offset()
                    )));
                }
                Ok(None) => break,
                Ok(Some(Err(e))) => return Err(partial.broken(&e)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            partial.add(data.len() as u64);
            self.ensure_allowed(partial.offset())?;
            sink.write(data)
                .await
                .map_err(|e| self.write_failure(target, partial, &e))?;
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                progress.bytes(partial.offset(), partial.total());
            }
        }
        progress.bytes(partial.offset(), partial.total());
        Ok(())
    }

    fn ensure_allowed(&self, bytes: u64) -> Result<(), Trouble> {
        let checked = self.limit.check(shown(&self.url), "has", bytes);
        checked.map_err(Trouble::Fatal)
    }

    fn write_failure(&self, target: &Path, partial: &Partial, error: &std::io::Error) -> Trouble {
        Trouble::Fatal(disk::write_failure(target, partial.total(), error))
    }

    fn gave_up(&self, cause: &str, tries: u32, since: Instant) -> Failure {
        Failure::new(
            Reason::StoreUnavailable,
            format!(
                "{}: {cause}; gave up after {tries} {} in {:.0} s",
                shown(&self.url),
                if tries == 1 { "try" } else { "tries" },
                since.elapsed().as_secs_f32()
            ),
        )
    }
}

impl Source for HttpSource {
    async fn fetch(&self, target: &Path, progress: &dyn Progress) -> Result<Fetched, Failure> {
        let created = Sink::create(target).await;
        let mut sink = created.map_err(|e| disk::write_failure(target, None, &e))?;
        let mut partial = Partial::default();
        let (mut tries, mut since) = (0, Instant::now());
        loop {
            let best = partial.best();
            let outcome = self
                .attempt(target, &mut sink, &mut partial, progress)
                .await;
            let (cause, wanted) = match outcome {
                Ok(()) => break,
                Err(Trouble::Fatal(failure)) => return Err(failure),
                Err(Trouble::Again { cause, after }) => (cause, after),
            };
            if partial.best() >= best + GETS_ON {
                (tries, since) = (0, Instant::now());
            }
            tries += 1;
            let pause = resume::pause(&self.patience, tries, wanted, resume::jitter());
            if tries >= self.patience.tries || since.elapsed() + pause > self.patience.window {
                return Err(self.gave_up(&cause, tries, since));
            }
            tracing::warn!(
                uri = %shown(&self.url), cause, tries, pause_ms = pause.as_millis() as u64,
                "the store failed, trying again"
            );
            tokio::time::sleep(pause).await;
        }
        let finished = sink.finish().await;
        let (digest, bytes) =
            finished.map_err(|e| disk::write_failure(target, partial.total(), &e))?;
        Ok(Fetched::Downloaded {
            file: target.to_path_buf(),
            bytes,
            digest,
        })
    }
}
