//! Copies of requests, for comparison: off the path of the request that is copied.
//!
//! ```text
//!  request ─► pod ─► answer ─► client
//!     └─ one of so many ─┘ └─ its end ─► queue ─► the candidate ─┐
//!                                            └─► the same again ─┴─► compare ─► counts
//! ```
//!
//! A copy is made of a request that another revision than the copies' own answered with 200, whose body is kept, and whose
//! answer has gone out whole. It goes to a pod of the candidate and, so that a model that does not agree with itself is
//! known for that, once more to the revision that answered. Invariants: nobody waits for a copy; of copies at most
//! [`QUEUE`] of a service wait or run, at most [`RUNNING`] run, and all of a router take at most [`MEMORY`]; where there is no
//! room for one it is dropped; it is neither tried again nor counted as a request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use jiff::Timestamp;
use ortolan_stats::{
    Example,
    example::{Difference, Input, MOST, What},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::{
    access,
    alarm::Alarm,
    answer::Connection,
    body::{Memory, Rules, Source},
    compare::{NO_CLASS, Verdict, difference::hex},
    exchange::{self, Answered, Failed, Head},
    live::{Live, Place},
    paths,
    plan::{LiveRevision, Want},
    pod::Pod,
    split::Split,
    table::Mirror,
    tally::Counts,
};

/// Copies of one service that wait or run.
pub const QUEUE: usize = 32;
/// Those of them that run.
pub const RUNNING: usize = 4;
/// Bytes that all copies of a router take.
pub const MEMORY: usize = 64 << 20;
/// The longest answer that is compared.
pub const ANSWER: usize = 256 << 10;

/// Says that a request is a copy.
const SHADOW: HeaderName = HeaderName::from_static("x-ortolan-shadow");

/// The copies of one service.
#[derive(Debug)]
pub struct Copies {
    /// As the table says.
    pub mirror: Mirror,
    /// Who gets them.
    pub to: Arc<LiveRevision>,
    lane: Arc<Lane>,
}

/// What goes on where it was when the table changes.
#[derive(Debug)]
struct Lane {
    /// The first "revision" of it is a copy, the second none.
    turns: Split,
    queue: Arc<Semaphore>,
    running: Semaphore,
}

impl Copies {
    /// As the table says, after those of before.
    #[must_use]
    pub fn new(mirror: &Mirror, to: Arc<LiveRevision>, before: Option<&Self>) -> Self {
        let is_same = |had: &&Self| {
            had.mirror.revision == mirror.revision && had.mirror.percent == mirror.percent
        };
        let lane = before.filter(is_same).map(|had| Arc::clone(&had.lane));
        let percent = u32::from(mirror.percent.get());
        Self {
            mirror: mirror.clone(),
            to,
            lane: lane.unwrap_or_else(|| {
                Arc::new(Lane {
                    turns: Split::new(&[percent, 100 - percent]),
                    queue: Arc::new(Semaphore::new(QUEUE)),
                    running: Semaphore::new(RUNNING),
                })
            }),
        }
    }
}

/// A request that is copied when its answer has gone out.
pub struct Sample {
    live: Arc<Live>,
    copies: Arc<Copies>,
    /// Who answered.
    by: Arc<LiveRevision>,
    /// Where pairs of its own answers are counted.
    own: Arc<Counts>,
    /// The generation of the traffic under which it arrived.
    generation: u64,
    head: Head,
    body: Vec<Bytes>,
    answer: Vec<Bytes>,
    answered: usize,
    /// Taken of the memory.
    bytes: usize,
    memory: Arc<Memory>,
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.memory.give(self.bytes);
    }
}

/// A request that was answered.
pub struct Seen<'a, B> {
    /// Its head.
    pub head: &'a Head,
    /// Its body.
    pub source: &'a Source<B>,
    /// What it needed.
    pub want: &'a Want,
    /// Who answered.
    pub place: &'a Place,
    /// The answer's code.
    pub status: StatusCode,
    /// The answer's head.
    pub headers: &'a HeaderMap,
}

/// What is copied of requests: `None` when this one is not.
pub fn sample<B>(seen: &Seen<'_, B>, memory: &Arc<Memory>) -> Option<Box<Sample>>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let place = seen.place;
    let plan = place.live.plan();
    let copies = plan.copies.as_ref()?;
    let own = place.charged.as_ref()?;
    // Both sides of a pair are counted under the same generation of the traffic.
    let is_current = seen.want.generation == Some(plan.generation);
    let is_others = place.revision.name != copies.to.name && own.is_of(&place.revision.name);
    if !(is_current && is_others && is_comparable(seen)) {
        return None;
    }
    let body = seen.source.whole()?;
    if copies.lane.turns.next() != Some(0) {
        return None;
    }
    let bytes = body.iter().map(Bytes::len).sum::<usize>() + ANSWER;
    if !memory.take(bytes) {
        copies.to.meter.copied("dropped");
        return None;
    }
    Some(Box::new(Sample {
        live: Arc::clone(&place.live),
        copies: Arc::clone(copies),
        by: Arc::clone(&place.revision),
        own: Arc::clone(own),
        generation: plan.generation,
        head: marked(seen.head),
        body,
        answer: Vec::new(),
        answered: 0,
        bytes,
        memory: Arc::clone(memory),
    }))
}

fn is_comparable<B>(seen: &Seen<'_, B>) -> bool {
    let head = seen.head;
    let kind = seen.headers.get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    head.method == Method::POST
        && !head.is_grpc
        && paths::is_comparable(head.uri.path())
        && seen.status == StatusCode::OK
        && is_json
        && !seen.headers.contains_key(header::CONTENT_ENCODING)
}

fn marked(head: &Head) -> Head {
    let mut head = head.again();
    head.headers.remove(header::ACCEPT_ENCODING);
    head.headers.insert(SHADOW, HeaderValue::from_static("1"));
    head
}

/// What came of a copy.
enum Asked {
    Said(StatusCode, Bytes),
    /// No pod had room.
    NoRoom,
    /// No answer, by the fault of a connection.
    Lost,
    /// No answer in time.
    Late,
}

/// A copy's place at a pod.
struct Spare<'a> {
    live: &'a Arc<Live>,
    pod: Arc<Pod>,
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        self.pod.leave();
        self.live.left();
    }
}

impl Sample {
    /// Keeps a part of the answer. `false`: it is too long to be compared.
    #[must_use]
    pub fn keeps(&mut self, part: &Bytes) -> bool {
        self.answered += part.len();
        let fits = self.answered <= ANSWER;
        if fits {
            self.answer.push(part.clone());
        } else {
            self.copies.to.meter.copied("unclear");
        }
        fits
    }

    /// The answer has gone out: the copies may.
    pub fn send(self: Box<Self>) {
        let queue = Arc::clone(&self.copies.lane.queue);
        let (Ok(waits), Ok(handle)) = (queue.try_acquire_owned(), Handle::try_current()) else {
            return self.copies.to.meter.copied("dropped");
        };
        handle.spawn(async move {
            self.run().await;
            drop(waits);
        });
    }

    async fn run(self: Box<Self>) {
        let lane = Arc::clone(&self.copies.lane);
        let to = Arc::clone(&self.copies.to);
        let Ok(_runs) = lane.running.acquire().await else {
            return;
        };
        // Whoever waits for a pod goes first.
        if self.live.held() > 0 {
            return to.meter.copied("dropped");
        }
        let body = Bytes::from(self.body.concat());
        let (other, again) = tokio::join!(self.ask(&to, &body), self.ask(&self.by, &body));
        // An answer may be long, and the threads that serve have other things to do.
        let compared = tokio::task::spawn_blocking(move || {
            self.judge(&other, &to, &to.counts);
            self.judge(&again, &self.by, &self.own);
        });
        if let Err(error) = compared.await {
            tracing::error!("answers could not be compared: {error}");
        }
    }

    async fn ask(&self, revision: &LiveRevision, body: &Bytes) -> Asked {
        let Some(pod) = revision.enter_spare() else {
            return Asked::NoRoom;
        };
        let spare = Spare {
            live: &self.live,
            pod,
        };
        let deadline = Instant::now() + self.live.plan().settings().timeout;
        let rules = Rules {
            longest: None,
            patience: None,
            kept: 0,
            memory: Arc::clone(&self.memory),
        };
        let source = Source::new(Full::new(body.clone()), rules);
        let (mut head, alarm) = (self.head.again(), Alarm::default());
        match exchange::to(&spare.pod, &mut head, &source, (&alarm, deadline)).await {
            Ok(answered) => read(answered, &spare.pod, &source, deadline).await,
            Err(Failed::Late) => Asked::Late,
            Err(_) => Asked::Lost,
        }
    }

    /// Compares and counts.
    fn judge(&self, asked: &Asked, of: &LiveRevision, counts: &Counts) {
        let users = self.answer.concat();
        let compare = &self.copies.mirror.compare;
        let (verdict, classes) = match asked {
            Asked::NoRoom => return of.meter.copied("dropped"),
            Asked::Lost => return of.meter.copied("failed"),
            Asked::Said(StatusCode::OK, other) => compare.pair_and_classes(&users, other),
            // No answer to the same request is another answer, and of no class.
            Asked::Said(..) | Asked::Late => match compare.pair_and_classes(&users, &users) {
                (Verdict::Unclear, _) => (Verdict::Unclear, None),
                (Verdict::Agree | Verdict::Differ, classes) => {
                    let classes = classes.map(|[users, _]| [users, NO_CLASS.to_owned()]);
                    (Verdict::Differ, classes)
                }
            },
        };
        let outcome = match verdict {
            Verdict::Unclear => return of.meter.copied("unclear"),
            Verdict::Agree => "agreed",
            Verdict::Differ => "differed",
        };
        let is_candidates = *of.name != *self.by.name;
        if verdict == Verdict::Differ && is_candidates {
            counts.keep(|| self.example(asked, &users));
        }
        if let Some(classes) = classes.filter(|_| is_candidates) {
            counts.said(classes);
        }
        counts.compared(verdict == Verdict::Differ);
        of.meter.copied(outcome);
    }
}

impl Sample {
    /// What may be told of a copy whose answer differs.
    fn example(&self, asked: &Asked, users: &[u8]) -> Example {
        let body = self.body.concat();
        let difference = match asked {
            Asked::Said(StatusCode::OK, other) => {
                self.copies.mirror.compare.difference(users, other)
            }
            Asked::Said(code, _) => Difference {
                code: Some(code.as_u16()),
                ..Difference::of(What::Code)
            },
            Asked::Late | Asked::Lost | Asked::NoRoom => Difference::of(What::Late),
        };
        let example = Example {
            at: Timestamp::now(),
            generation: self.generation,
            stable: self.by.name.to_string(),
            candidate: self.copies.to.name.to_string(),
            difference,
            inputs: inputs(&body),
            body_sha256: hex(&Sha256::digest(&body)),
            body_bytes: body.len() as u64,
            trace_id: access::trace_id(&self.head.headers),
        };
        example.bounded()
    }
}

/// The inputs that a body of V2 names, without their values; of other bodies none.
fn inputs(body: &[u8]) -> Vec<Input> {
    #[derive(Deserialize)]
    struct Body {
        inputs: Vec<Input>,
    }
    let read = serde_json::from_slice::<Body>(body);
    let inputs = read.map(|body| body.inputs).unwrap_or_default();
    inputs.into_iter().take(MOST).collect()
}

async fn read(
    (answer, connection): Answered,
    pod: &Pod,
    source: &Source<Full<Bytes>>,
    deadline: Instant,
) -> Asked {
    let (head, body) = answer.into_parts();
    // The pod is full, and says that it did not begin.
    let is_busy = head.status == StatusCode::SERVICE_UNAVAILABLE
        && head.headers.contains_key(header::RETRY_AFTER);
    match timeout_at(deadline, Limited::new(body, 2 * ANSWER).collect()).await {
        Err(_) => Asked::Late,
        Ok(Ok(body)) => {
            if let Connection::One(sender) = connection
                && source.is_sent()
            {
                pod.pool.put(sender);
            }
            match is_busy {
                true => Asked::NoRoom,
                false => Asked::Said(head.status, body.to_bytes()),
            }
        }
        // Longer than anything that it could be the same as.
        Ok(Err(error)) if error.is::<LengthLimitError>() => Asked::Said(head.status, Bytes::new()),
        Ok(Err(_)) => Asked::Lost,
    }
}
