//! `GET /stats`: a stream of what came of the requests, for the operator; the frames of [`ortolan_stats`].
//!
//! On an address of its own, behind a [`door`]. The first frame has every service, then one comes each second with
//! those that changed, and at once when the first request of a service has to wait for a pod. Invariants: what a reader
//! does not take piles up nowhere, since each frame is made when it can be sent; where nothing opens it nobody but this
//! machine can read.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use kube::Client;
use ortolan_stats::{Frame, PATH};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};

use self::door::Door;
use crate::{directory::Directory, failure::Failure, live::Live, options, tally::Mark};

mod door;
mod keyring;
mod signature;
pub mod token;

/// Between two frames.
const PERIOD: Duration = Duration::from_secs(1);
/// The same when a request has to wait: services whose pods are full begin and end to hold many times a second.
const SHORTEST: Duration = Duration::from_millis(50);
/// Readers at a time. One operator leads; another one that begins to lead may be there before the first is gone.
const READERS: usize = 8;

/// What is needed to tell.
#[derive(Clone)]
pub struct Stats {
    /// Where.
    pub address: SocketAddr,
    door: Door,
    name: String,
    started: Timestamp,
    directory: Arc<Directory>,
    readers: Arc<Semaphore>,
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

impl Stats {
    /// As the options say; `None` when they want no stream. The API server is asked through this client, by default the
    /// cluster's own.
    ///
    /// # Errors
    /// When what is to open it cannot be used, or nothing is and the address can be reached from elsewhere.
    pub async fn of(
        options: &options::Stats,
        client: Option<Client>,
        directory: Arc<Directory>,
    ) -> Result<Option<Self>, Failure> {
        let Some(address) = options.stats else {
            return Ok(None);
        };
        let door = Door::of(options, client).await?;
        let name = options.router_name.clone().filter(|name| !name.is_empty());
        Ok(Some(Self {
            address,
            door,
            name: name
                .or_else(host_name)
                .unwrap_or_else(|| "router".to_owned()),
            started: Timestamp::now(),
            directory,
            readers: Arc::new(Semaphore::new(READERS)),
        }))
    }

    /// The one path.
    pub fn paths(self) -> Router {
        Router::new().route(PATH, get(stream)).with_state(self)
    }
}

async fn stream(State(stats): State<Stats>, headers: HeaderMap) -> Response {
    if let Some((code, message)) = stats.door.refuses(&headers).await {
        let mut answer = (code, message).into_response();
        if code == StatusCode::UNAUTHORIZED {
            let bearer = header::HeaderValue::from_static("Bearer");
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        return answer;
    }
    let Ok(permit) = Arc::clone(&stats.readers).try_acquire_owned() else {
        let message = "so many read already: close one of the other streams";
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let reader = Reader {
        wakes: stats.directory.wakes(),
        stats,
        told: HashMap::new(),
        last: None,
        _permit: permit,
    };
    let frames = stream::unfold(reader, |mut reader| async {
        let line = reader.line().await;
        Some((line, reader))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(frames)).into_response()
}

/// One who reads the stream.
struct Reader {
    stats: Stats,
    wakes: watch::Receiver<()>,
    /// What was told of each service, and of which: one that goes and comes again counts anew.
    told: HashMap<String, (Weak<Live>, Mark)>,
    last: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// The next line, when it is time for it.
    async fn line(&mut self) -> Result<Bytes, serde_json::Error> {
        if let Some(last) = self.last {
            let woken = async {
                // The directory outlives its readers; without it there is only the time.
                if self.wakes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                sleep_until(last + SHORTEST).await;
            };
            tokio::select! {
                () = woken => {}
                () = sleep_until(last + PERIOD) => {}
            }
        }
        self.last = Some(Instant::now());
        // What is told now needs no other frame.
        self.wakes.mark_unchanged();
        let mut line = serde_json::to_vec(&self.frame())?;
        line.push(b'\n');
        Ok(line.into())
    }

    fn frame(&mut self) -> Frame {
        let mut frame = Frame {
            router: self.stats.name.clone(),
            started: self.stats.started,
            services: Default::default(),
            gone: Vec::new(),
        };
        let mut before = std::mem::take(&mut self.told);
        for live in self.stats.directory.all() {
            let name = live.name.to_string();
            // First the mark: what changes in between is told once more.
            let mark = live.mark();
            let had = before.remove(&name);
            let is_same = had
                .as_ref()
                .map(|(of, _)| of.as_ptr() == Arc::as_ptr(&live));
            if is_same == Some(false) {
                frame.gone.push(name.clone());
            }
            if is_same != Some(true) || had.is_none_or(|(_, told)| told != mark) {
                frame.services.insert(name.clone(), live.told());
            }
            self.told.insert(name, (Arc::downgrade(&live), mark));
        }
        frame.gone.extend(before.into_keys());
        frame
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::directory::tests::without_table;

    fn options(address: &str, file: Option<&Path>) -> options::Stats {
        options::Stats {
            stats: Some(address.parse().unwrap()),
            stats_token_file: file.map(Into::into),
            stats_reader: None,
            router_name: Some("router-a".into()),
        }
    }

    #[tokio::test]
    async fn an_address_that_others_reach_needs_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, some) = (folder.path().join("empty"), folder.path().join("some"));
        fs::write(&empty, "\n").unwrap();
        fs::write(&some, "secret\n").unwrap();
        let missing = folder.path().join("missing");
        for (address, file, wrong) in [
            ("127.0.0.1:1", None, None),
            ("[::1]:1", None, None),
            ("0.0.0.0:1", Some(&some), None),
            (
                "0.0.0.0:1",
                None,
                Some("give --stats-reader, --stats-token-file"),
            ),
            ("127.0.0.1:1", Some(&empty), Some("it is empty")),
            ("127.0.0.1:1", Some(&missing), Some("No such file")),
        ] {
            let options = options(address, file.map(|f| &**f));
            let of = Stats::of(&options, None, Arc::new(without_table()));
            match (of.await, wrong) {
                (Ok(Some(_)), None) => {}
                (Err(error), Some(wrong)) => {
                    assert!(error.to_string().contains(wrong), "{error}");
                }
                (_, wrong) => panic!("{address} {file:?} {wrong:?}"),
            }
        }
        let mut none = options("127.0.0.1:1", None);
        none.stats = None;
        let of = Stats::of(&none, None, Arc::new(without_table()));
        assert!(of.await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_has_what_changed_and_a_service_that_came_again_is_gone_before() {
        let directory = Arc::new(without_table());
        let table = |text: &str| directory.replace(serde_saphyr::from_str(text).unwrap());
        table("services: {demo/cats: {generation: 3}, demo/dogs: {}}").unwrap();
        let options = options("127.0.0.1:1", None);
        let stats = Stats::of(&options, None, Arc::clone(&directory));
        let stats = stats.await.unwrap().unwrap();
        let permit = Arc::clone(&stats.readers).try_acquire_owned().unwrap();
        let mut reader = Reader {
            wakes: directory.wakes(),
            stats,
            told: HashMap::new(),
            last: None,
            _permit: permit,
        };
        let mut next = || {
            let Frame { services, gone, .. } = reader.frame();
            let services: Vec<(String, Option<u64>)> = services
                .into_iter()
                .map(|(name, service)| (name, service.generation))
                .collect();
            (services, gone)
        };
        let named = |name: &str, generation| (format!("demo/{name}"), generation);
        let (cats, dogs) = (named("cats", Some(3)), named("dogs", None));
        assert_eq!(next(), (vec![cats, dogs], vec![]));
        assert_eq!(next(), (vec![], vec![]));
        table("services: {demo/cats: {generation: 4}, demo/dogs: {}}").unwrap();
        assert_eq!(next(), (vec![named("cats", Some(4))], vec![]));
        table("services: {demo/cats: {generation: 4}}").unwrap();
        assert_eq!(next(), (vec![], vec!["demo/dogs".to_owned()]));
        table("services: {}").unwrap();
        table("services: {demo/cats: {generation: 1}}").unwrap();
        let again = (vec![named("cats", Some(1))], vec!["demo/cats".to_owned()]);
        assert_eq!(next(), again);
    }
}
