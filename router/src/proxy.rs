//! One request, from its head to the head of its answer.
//!
//! ```text
//!  head ─► service ─► may it pass? ─► which revisions? ─► place at a pod ─► try ─► answer
//!                                                     (auth comes here) ▲      │ connect, lost, busy
//!                                                                       └──────┘ within retries and budget
//! ```
//!
//! Invariants: a request is sent again only when no byte of an answer came to the client, when its body can be, and
//! when nothing can have happened twice that matters (a stateful model gets nothing twice); what a client does wrong
//! is never counted against a pod.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use ortolan_linger::Lingering;
use tokio::time::{Instant, sleep};
use tower::retry::budget::Budget;

use crate::{
    access::{self, Line},
    again::{self, Cause, judge, late, put_aside},
    alarm::{Alarm, Alarms},
    answer::{Answer, Flight},
    asks::{REVISION, at_zero, authority, check_protocol, choice, forwarded, keys},
    body::{Memory, Rules, Source, Upload},
    copies::{self, Sample, Seen},
    directory::Directory,
    exchange::{self, Head},
    headers::{self, Ends},
    live::{Live, NoPlace, Place},
    metrics::{End, Metrics},
    paths::{self, Purpose},
    plan::{Plan, Want},
    rate::Limiter,
    refusal::Refusal,
    tally::Counts,
    target::SERVICE,
};

/// Between two parts of a request's body.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the next try at the only pod; doubled each time.
const PAUSE: Duration = Duration::from_millis(25);
/// So long after its arrival a request to a revision's only pod, which takes no connection, waits for word of another
/// or for the line. The EndpointSlice follows the end of a pod within a second or two.
const GONE: Duration = Duration::from_secs(5);

/// What holds for all services.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body, but for gRPC.
    pub max_body: u64,
    /// What is kept of a body for another try.
    pub replay: usize,
    /// Whether each request is logged.
    pub access_log: bool,
}

/// Answers requests.
pub struct Proxy {
    /// The services.
    pub directory: Arc<Directory>,
    /// The counters.
    pub metrics: Metrics,
    /// For bodies that are kept.
    pub memory: Arc<Memory>,
    /// For copies.
    pub copies: Arc<Memory>,
    /// What holds for all.
    pub limits: Limits,
    /// What one client may send.
    pub limiter: Option<Limiter>,
}

/// A request that may pass.
struct Passing {
    live: Arc<Live>,
    /// As the table said when it came.
    plan: Arc<Plan>,
    head: Head,
    source: Source<Upload>,
    want: Want,
    /// What its body may take of the memory while it waits.
    bytes: usize,
    arrived: Instant,
    cookie: Option<HeaderValue>,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    /// Whether it asks for another protocol: such a request is sent once.
    is_upgrade: bool,
    line: Option<Box<Line>>,
    /// Of the answer that goes to the client.
    copy: Option<Box<Sample>>,
}

impl Proxy {
    /// Answers one request; its deadlines are the alarms'.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
        alarms: Alarms,
    ) -> Response<Answer> {
        let arrived = Instant::now();
        let request = Lingering::of(request);
        let is_two = request.version() == Version::HTTP_2;
        let is_grpc = headers::is_grpc(request.headers());
        let mut line = self
            .limits
            .access_log
            .then(|| Box::new(line(&request, client, arrived)));
        let routed = self
            .limit(&request, client, arrived)
            .and_then(|()| self.route(request, is_grpc, (arrived, alarms.upload), &mut line));
        let answered = match routed {
            Ok(Routed::Answered(answer)) => Ok(*answer),
            Ok(Routed::Passes(passing)) => self.pass(passing, alarms.answer, &mut line).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|refusal| {
            self.metrics.refused(refusal.reason);
            let end = if is_grpc {
                End::Grpc(refusal.status.into())
            } else {
                End::Http(refusal.code.as_u16())
            };
            if let Some(line) = line {
                line.write(None, end);
            }
            refusal.answer(is_grpc && is_two)
        })
    }

    /// Whether its client may send so many.
    fn limit<B>(
        &self,
        request: &Request<B>,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        let client = limiter.client(peer, request.headers());
        let taken = limiter.take(client, now.into_std());
        taken.map_err(|wait| Refusal::too_many(limiter.rate(), wait))
    }

    /// Whether and how a request passes, without waiting for anything.
    fn route(
        &self,
        request: Request<Upload>,
        is_grpc: bool,
        (arrived, alarm): (Instant, Alarm),
        line: &mut Option<Box<Line>>,
    ) -> Result<Routed, Refusal> {
        let (mut parts, body) = request.into_parts();
        let authority = authority(&parts);
        check_protocol(&parts, is_grpc)?;
        let host = authority.as_ref().and_then(|value| value.to_str().ok());
        let ends = Ends::of(&parts.headers);
        let ours = |name| ends.has_ours().then(|| parts.headers.get(name)).flatten();
        let by_header = ours(SERVICE).map(HeaderValue::as_bytes);
        let found = self.directory.find(by_header, host, parts.uri.path())?;
        let live = found.live;
        let meaning = match &parts.uri.path()[found.prefix..] {
            path if is_grpc => paths::grpc(path),
            path => paths::rest(path),
        };
        let purpose = meaning.purpose;
        if purpose == Purpose::Management {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "management",
                "models are not loaded or unloaded through the router, which would change one pod of several: change the InferenceService, or ask each pod itself",
            ));
        }
        if purpose == Purpose::Work {
            live.meter.arrivals.inc();
        }
        let plan = live.plan();
        let choice = choice(&live, &plan, ours(REVISION), &meaning)?;
        if plan.is_at_zero()
            && let Some(answered) = at_zero(&live, purpose, is_grpc)
        {
            let answer = answered?;
            if let Some(line) = line.take() {
                line.write(
                    None,
                    if is_grpc {
                        End::Grpc(0)
                    } else {
                        End::Http(200)
                    },
                );
            }
            return Ok(Routed::Answered(Box::new(answer)));
        }
        let rules = self.rules(&parts.headers, is_grpc, alarm)?;
        let bytes = if body.is_end_stream() {
            0
        } else {
            let declared = body
                .size_hint()
                .exact()
                .and_then(|n| usize::try_from(n).ok());
            declared.map_or(rules.kept, |n| n.min(rules.kept))
        };
        let keys = keys(plan.settings(), &parts.headers);
        let generation = (purpose == Purpose::Work).then_some(plan.generation);
        let upgrade = headers::upgrade(&parts.headers, ends)
            .filter(|_| parts.version == Version::HTTP_11)
            .zip(parts.extensions.remove::<OnUpgrade>());
        let uri = forwarded(
            &parts.uri,
            found.prefix,
            authority.as_ref().filter(|_| is_grpc),
        );
        headers::of_request(&mut parts.headers, ends);
        if purpose == Purpose::Work {
            let asks = HeaderValue::from_static("1");
            parts.headers.insert(headers::ASKS_RUN, asks);
        }
        match authority {
            Some(authority) if !is_grpc => {
                // Else it is the header's own.
                if parts.uri.authority().is_some() {
                    parts.headers.insert(header::HOST, authority);
                }
            }
            _ => drop(parts.headers.remove(header::HOST)),
        }
        Ok(Routed::Passes(Box::new(Passing {
            live,
            plan,
            head: Head::new(parts.method, uri, parts.headers, is_grpc),
            source: Source::new(body, rules),
            want: Want {
                choice,
                assigned: None,
                key: keys.session,
                pod_key: keys.pod,
                avoid: Vec::new(),
                generation,
                charged: None,
            },
            bytes,
            arrived,
            cookie: keys.cookie,
            is_upgrade: upgrade.is_some(),
            upgrade,
            line: line.take(),
            copy: None,
        })))
    }

    fn rules(&self, headers: &HeaderMap, is_grpc: bool, alarm: Alarm) -> Result<Rules, Refusal> {
        let longest = (!is_grpc).then_some(self.limits.max_body);
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|n| n.to_str().ok()?.parse::<u64>().ok());
        if let (Some(longest), Some(declared)) = (longest, declared)
            && declared > longest
        {
            return Err(crate::body::Fault::TooLarge(longest).into());
        }
        Ok(Rules {
            longest,
            patience: (!is_grpc).then_some((PATIENCE, alarm)),
            kept: self.limits.replay,
            memory: Arc::clone(&self.memory),
        })
    }

    /// Until the head of an answer.
    async fn pass(
        &self,
        mut passing: Box<Passing>,
        alarm: Alarm,
        line: &mut Option<Box<Line>>,
    ) -> Result<Response<Answer>, Refusal> {
        let answered = self.tries(&mut passing, &alarm).await;
        *line = passing.line.take();
        let (place, (answer, connection)) = answered?;
        let (mut parts, body) = answer.into_parts();
        let is_switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = is_switched
            .then(|| parts.headers.remove(header::UPGRADE))
            .flatten();
        let Passing {
            plan,
            head,
            arrived,
            cookie,
            source,
            copy,
            ..
        } = *passing;
        let patience = (!head.is_grpc).then_some(plan.settings().timeout);
        let body = match place {
            Some(place) => {
                let seen = (parts.status, &parts.headers);
                let flight = Flight::new(
                    place,
                    (connection, source),
                    seen,
                    head.is_grpc,
                    arrived.into_std(),
                    line.take(),
                );
                Answer::streamed(body, flight, (alarm, patience), copy)
            }
            // The connection is no longer one of HTTP.
            None => Answer::whole(Full::default()),
        };
        headers::of_answer(&mut parts.headers);
        if let Some(protocol) = upgraded {
            parts
                .headers
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, protocol);
        }
        if let Some(cookie) = cookie {
            parts.headers.append(header::SET_COOKIE, cookie);
        }
        let mut answer = Response::new(body);
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        Ok(answer)
    }

    /// What is copied of it, if it is.
    fn sample<B>(
        &self,
        passing: &Passing,
        place: &Place,
        answer: &Response<B>,
    ) -> Option<Box<Sample>> {
        let seen = Seen {
            head: &passing.head,
            source: &passing.source,
            want: &passing.want,
            place,
            status: answer.status(),
            headers: answer.headers(),
        };
        copies::sample(&seen, &self.copies)
    }

    /// Tries pods, one after the other.
    async fn tries(
        &self,
        passing: &mut Passing,
        alarm: &Alarm,
    ) -> Result<(Option<Place>, exchange::Answered), Refusal> {
        let live = Arc::clone(&passing.live);
        let plan = Arc::clone(&passing.plan);
        let settings = plan.settings();
        let held_until = passing.arrived + settings.hold_timeout;
        let mut deadline = None;
        let mut tries = 0;
        live.budget.deposit();
        loop {
            let placed = tokio::select! {
                biased;
                placed = live.place(&mut passing.want, passing.bytes, held_until) => placed,
                fault = passing.source.read_ahead() => return Err(fault.into()),
            };
            let mut place = Some(placed.map_err(|why| {
                // That the router ends, or the service, says nothing of the revision.
                if matches!(why, NoPlace::Late | NoPlace::Full(_)) {
                    failed(passing.want.charged.as_ref(), passing.arrived);
                }
                Refusal::no_place(why, &live.name, live.held(), passing.arrived.elapsed())
            })?);
            passing.want.charged = place.as_ref().and_then(|place| place.charged.clone());
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + settings.timeout);
            let sent = match passing.upgrade.take() {
                Some(upgrade) => {
                    exchange::upgrade(&mut place, &mut passing.head, upgrade, (alarm, deadline))
                        .await
                }
                None => {
                    let until = (alarm, deadline);
                    exchange::send(&place, &mut passing.head, &passing.source, until).await
                }
            };
            // Given away to a connection that is no longer one of HTTP.
            let Some(held) = place else {
                if let (Ok(_), Some(charged)) = (&sent, &passing.want.charged) {
                    charged.ended(Some(passing.arrived.elapsed()), false);
                }
                return sent
                    .map(|answered| (None, answered))
                    .map_err(|failed| late(&live, settings, &failed));
            };
            if let Some(fault) = sent.as_ref().err().and(passing.source.fault()) {
                return Err(fault.into());
            }
            let cause = judge(&held, &sent);
            // What asks for another protocol is sent once.
            let can_repeat = !passing.is_upgrade && passing.source.can_replay();
            // The last pod has ended, and the routers are told of it a moment later: its requests wait for the next one.
            let is_gone = cause == Some(Cause::Connect)
                && can_repeat
                && settings.retries > 0
                && Instant::now() + 2 * PAUSE
                    < held_until.min(passing.arrived + GONE).min(deadline)
                && !held
                    .revision
                    .has_other(&[&*passing.want.avoid, &[held.pod.address]].concat());
            let again = cause.filter(|cause| {
                is_gone || can_repeat && again::is_allowed(*cause, tries, settings, &live)
            });
            let Some(cause) = again else {
                if let Ok((answer, _)) = &sent {
                    passing.copy = self.sample(passing, &held, answer);
                }
                passing.source.commit();
                return match sent {
                    Ok(answered) => Ok((Some(held), answered)),
                    Err(why) => {
                        failed(held.charged.as_ref(), passing.arrived);
                        Err(again::refusal(&held, settings, &why))
                    }
                };
            };
            if !is_gone {
                self.metrics.retried(&live.meter, cause.word());
            }
            tracing::debug!(service = %live.name, pod = %held.pod.address, cause = cause.word(), "a request is sent again");
            let want = &mut passing.want;
            want.assigned = Some(Arc::clone(&held.revision.name));
            want.avoid.push(held.pod.address);
            let is_only = !held.revision.has_other(&want.avoid);
            if let Ok(answered) = sent {
                put_aside(held, answered, passing.source.is_sent()).await;
            } else {
                drop(held);
            }
            if is_only {
                want.avoid.clear();
                let pause = PAUSE * 2_u32.pow(tries.min(5));
                sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            }
            tries += u32::from(!is_gone);
        }
    }
}

enum Routed {
    /// The router's own answer.
    Answered(Box<Response<Answer>>),
    Passes(Box<Passing>),
}

/// Counts a request that the router answers with an error because of its pods.
fn failed(charged: Option<&Arc<Counts>>, arrived: Instant) {
    if let Some(charged) = charged {
        charged.ended(Some(arrived.elapsed()), true);
    }
}

fn line<B>(request: &Request<B>, client: SocketAddr, arrived: Instant) -> Line {
    let host = request.uri().host().map(str::as_bytes);
    let host = host.or_else(|| {
        request
            .headers()
            .get(header::HOST)
            .map(HeaderValue::as_bytes)
    });
    Line {
        arrived: arrived.into_std(),
        client,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        host: String::from_utf8_lossy(host.unwrap_or_default()).into_owned(),
        trace_id: access::trace_id(request.headers()),
    }
}
