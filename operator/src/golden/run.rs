//! One run of a golden set: every line to the candidate's pod and, where there is one, to the stable revision's.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, stream};
use hyper::body::Bytes;
use ortolan_core::rollout::golden::{self, Agreement, Ask, Case, Image, Judgement, MAX_TOLD};
use tokio::{task::spawn_blocking, time::timeout};
use url::Url;

use super::{
    Pod, Trouble,
    fetch::Store,
    pods::{Pods, Question, authority},
};

/// The file. Twice of it is held while it is read, of at most two sets at a time.
const MAX_FILE: usize = 32 << 20;
const MAX_IMAGE: usize = 16 << 20;
const FILE_PATIENCE: Duration = Duration::from_secs(60);
const IMAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Lines at once: the candidate has no other traffic, and the stable revision has its users.
const AT_ONCE: usize = 2;
/// The whole run.
const LONGEST: Duration = Duration::from_secs(600);

/// A pod's address and its model's name.
#[derive(Clone, Debug)]
struct Asked {
    address: String,
    model: String,
}

impl From<Pod<'_>> for Asked {
    fn from(pod: Pod<'_>) -> Self {
        Self {
            address: pod.address.to_owned(),
            model: pod.model.to_owned(),
        }
    }
}

impl Asked {
    fn socket(&self) -> Result<SocketAddr, Trouble> {
        authority(&self.address).map_err(Trouble::Passing)
    }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub(super) struct Work {
    uri: String,
    candidate: Asked,
    stable: Option<Asked>,
}

/// How the answers to one line are.
struct Judged {
    candidate: Result<(), String>,
    /// None when the stable revision was not reached.
    stable: Option<bool>,
}

impl Work {
    pub(super) fn new(uri: &str, candidate: Pod<'_>, stable: Option<Pod<'_>>) -> Self {
        Self {
            uri: uri.to_owned(),
            candidate: candidate.into(),
            stable: stable.map(Into::into),
        }
    }

    /// From the file to the judgement.
    pub(super) async fn run(&self, store: &Store, pods: &Pods) -> Result<Judgement, Trouble> {
        let base = Url::parse(&self.uri).map_err(|error| {
            Trouble::Final(format!(
                "{:?} is no address ({error}): write the golden set's as https://HOST/PATH",
                self.uri
            ))
        })?;
        let file = store.get(&base, MAX_FILE, FILE_PATIENCE).await?;
        let cases = spawn_blocking(move || golden::parse(&file));
        let cases = cases
            .await
            .map_err(|error| Trouble::Passing(format!("reading the golden set stopped: {error}")))?
            .map_err(|error| Trouble::Final(error.to_string()))?;
        let lines = cases.len();
        let work = self.ask_all(store, pods, &base, cases);
        timeout(LONGEST, work).await.unwrap_or_else(|_| {
            Err(Trouble::Final(format!(
                "the golden set's {lines} lines take longer than {} minutes: write fewer, or smaller ones",
                LONGEST.as_secs() / 60
            )))
        })
    }

    async fn ask_all(
        &self,
        store: &Store,
        pods: &Pods,
        base: &Url,
        cases: Vec<Case>,
    ) -> Result<Judgement, Trouble> {
        let mut judgement = Judgement {
            stable: self.stable.as_ref().map(|_| Agreement::default()),
            ..Judgement::default()
        };
        let asked = stream::iter(cases)
            .map(async |case| self.ask(store, pods, base, &case).await)
            // In their order, so that the first disagreements are those of the file.
            .buffered(AT_ONCE);
        let mut asked = std::pin::pin!(asked);
        while let Some(judged) = asked.next().await {
            let judged = judged?;
            count(&mut judgement.candidate, judged.candidate.is_ok());
            if let Err(how) = judged.candidate
                && judgement.disagreements.len() < MAX_TOLD
            {
                judgement.disagreements.push(how);
            }
            match (&mut judgement.stable, judged.stable) {
                (Some(stable), Some(agrees)) => count(stable, agrees),
                // Half a comparison is none.
                _ => judgement.stable = None,
            }
        }
        Ok(judgement)
    }

    async fn ask(
        &self,
        store: &Store,
        pods: &Pods,
        base: &Url,
        case: &Case,
    ) -> Result<Judged, Trouble> {
        let question = question(store, base, case).await?;
        let candidate = self.candidate.socket()?;
        let (code, answer) = pods
            .ask(candidate, &self.candidate.model, &question)
            .await?;
        let judged = case.judge(code, &answer);
        drop(answer);
        let stable = match &self.stable {
            Some(stable) => match stable.socket() {
                Ok(address) => pods.ask(address, &stable.model, &question).await.ok(),
                Err(_) => None,
            },
            None => None,
        };
        Ok(Judged {
            candidate: judged,
            stable: stable.map(|(code, answer)| case.judge(code, &answer).is_ok()),
        })
    }
}

fn count(agreement: &mut Agreement, agrees: bool) {
    agreement.all += 1;
    agreement.agreed += u32::from(agrees);
}

async fn question(store: &Store, base: &Url, case: &Case) -> Result<Question, Trouble> {
    Ok(match &case.ask {
        Ask::Tensors(request) => Question {
            path: "/v2/models/",
            suffix: "/infer",
            kind: Some("application/json"),
            body: Bytes::from(request.clone()),
        },
        Ask::Image(image) => Question {
            path: "/predict/",
            suffix: "",
            // The server sees which it is, JPEG, PNG or WebP.
            kind: None,
            body: match image {
                Image::Bytes(bytes) => Bytes::from(bytes.clone()),
                Image::At(at) => picture(store, base, case.line, at).await?,
            },
        },
    })
}

/// An image that stands beside the file, or below.
async fn picture(store: &Store, base: &Url, line: usize, at: &str) -> Result<Bytes, Trouble> {
    let wrong = |what: &str| {
        Trouble::Final(format!(
            "line {line} of the golden set has an image {what}: write its address relative to the file, photo.jpg"
        ))
    };
    let url = base.join(at).map_err(|_| wrong("whose address is none"))?;
    if url.origin() != base.origin() {
        return Err(wrong("at another host than the file"));
    }
    let got = store.get(&url, MAX_IMAGE, IMAGE_PATIENCE).await;
    got.map_err(|trouble| match trouble {
        Trouble::Final(why) => Trouble::Final(format!("line {line} of the golden set: {why}")),
        passing @ Trouble::Passing(_) => passing,
    })
}
