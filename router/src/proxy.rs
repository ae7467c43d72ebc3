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

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header, request::Parts, uri::PathAndQuery,
};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::{Instant, sleep, timeout};
use tower::retry::budget::Budget;

use crate::{
    access::{self, Line},
    answer::{Answer, Connection, Flight},
    body::{Memory, Rules, Source},
    directory::Directory,
    exchange::{self, Failed, Head},
    headers,
    live::{Choice, Live, Place, Plan, Want},
    metrics::{End, Metrics},
    paths::{self, Meaning, Purpose},
    refusal::{Refusal, is_free_to_retry},
    split,
    table::{RevisionHeader, Session, Settings},
    target::SERVICE,
};

/// Chooses a revision, where the service allows it.
const REVISION: HeaderName = HeaderName::from_static("x-ortolan-revision");
/// Between two parts of a request's body.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the next try at the only pod; doubled each time.
const PAUSE: Duration = Duration::from_millis(25);
/// What of an answer that is not passed on is read, so that its connection can be used again.
const LEFTOVER: usize = 8 << 10;
const LEFTOVER_PATIENCE: Duration = Duration::from_millis(50);
/// `{live: true}`, `{ready: true}` and `{status: SERVING}`: field 1 is 1, as a message of gRPC.
const YES: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

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
    /// What holds for all.
    pub limits: Limits,
}

/// A request that may pass.
struct Passing {
    live: Arc<Live>,
    head: Head,
    source: Source<Incoming>,
    want: Want,
    /// What its body may take of the memory while it waits.
    bytes: usize,
    arrived: Instant,
    cookie: Option<HeaderValue>,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    /// Whether it asks for another protocol: such a request is sent once.
    is_upgrade: bool,
    line: Option<Box<Line>>,
}

impl Proxy {
    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Response<Answer> {
        let arrived = Instant::now();
        let is_two = request.version() == Version::HTTP_2;
        let is_grpc = headers::is_grpc(request.headers());
        let mut line = self
            .limits
            .access_log
            .then(|| Box::new(line(&request, client, arrived)));
        let answered = match self.route(request, is_grpc, arrived, &mut line) {
            Ok(Routed::Answered(answer)) => Ok(*answer),
            Ok(Routed::Passes(passing)) => self.pass(*passing, &mut line).await,
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

    /// Whether and how a request passes, without waiting for anything.
    fn route(
        &self,
        request: Request<Incoming>,
        is_grpc: bool,
        arrived: Instant,
        line: &mut Option<Box<Line>>,
    ) -> Result<Routed, Refusal> {
        let (mut parts, body) = request.into_parts();
        let authority = authority(&parts);
        check_protocol(&parts, is_grpc)?;
        let host = authority.as_ref().and_then(|value| value.to_str().ok());
        let by_header = parts.headers.get(SERVICE).map(HeaderValue::as_bytes);
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
                "models are not loaded or unloaded through the router: change the InferenceService instead",
            ));
        }
        if purpose == Purpose::Work {
            live.meter.arrivals.inc();
        }
        let plan = live.plan();
        let choice = choice(&live, &plan, &parts.headers, &meaning)?;
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
        let rules = self.rules(&parts.headers, is_grpc)?;
        let bytes = if body.is_end_stream() {
            0
        } else {
            let declared = body
                .size_hint()
                .exact()
                .and_then(|n| usize::try_from(n).ok());
            declared.map_or(rules.kept, |n| n.min(rules.kept))
        };
        let (key, cookie) = session(plan.settings(), &parts.headers);
        let upgrade = headers::upgrade(&parts.headers)
            .filter(|_| parts.version == Version::HTTP_11)
            .zip(parts.extensions.remove::<OnUpgrade>());
        let uri = forwarded(
            &parts.uri,
            found.prefix,
            authority.as_ref().filter(|_| is_grpc),
        );
        headers::of_request(&mut parts.headers);
        match authority {
            Some(authority) if !is_grpc => parts.headers.insert(header::HOST, authority),
            _ => parts.headers.remove(header::HOST),
        };
        Ok(Routed::Passes(Box::new(Passing {
            live,
            head: Head {
                method: parts.method,
                uri,
                headers: parts.headers,
                is_grpc,
            },
            source: Source::new(body, rules),
            want: Want {
                choice,
                assigned: None,
                key,
                avoid: Vec::new(),
            },
            bytes,
            arrived,
            cookie,
            is_upgrade: upgrade.is_some(),
            upgrade,
            line: line.take(),
        })))
    }

    fn rules(&self, headers: &HeaderMap, is_grpc: bool) -> Result<Rules, Refusal> {
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
            patience: (!is_grpc).then_some(PATIENCE),
            kept: self.limits.replay,
            memory: Arc::clone(&self.memory),
        })
    }

    /// Until the head of an answer.
    async fn pass(
        &self,
        mut passing: Passing,
        line: &mut Option<Box<Line>>,
    ) -> Result<Response<Answer>, Refusal> {
        let answered = self.tries(&mut passing).await;
        *line = passing.line.take();
        let (place, (answer, connection)) = answered?;
        let (mut parts, body) = answer.into_parts();
        let is_switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = is_switched
            .then(|| parts.headers.remove(header::UPGRADE))
            .flatten();
        let Passing {
            live,
            head,
            arrived,
            cookie,
            ..
        } = passing;
        let patience = (!head.is_grpc).then_some(live.plan().settings().timeout);
        let body = match place {
            Some(place) => {
                let seen = (parts.status, &parts.headers);
                let flight = Flight::new(
                    place,
                    connection,
                    seen,
                    head.is_grpc,
                    arrived.into_std(),
                    line.take(),
                );
                Answer::streamed(body, flight, patience)
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

    /// Tries pods, one after the other.
    async fn tries(
        &self,
        passing: &mut Passing,
    ) -> Result<(Option<Place>, exchange::Answered), Refusal> {
        let live = Arc::clone(&passing.live);
        let plan = live.plan();
        let settings = plan.settings();
        let held_until = passing.arrived + settings.hold_timeout;
        let mut deadline = None;
        let mut tries = 0;
        live.budget.deposit();
        loop {
            let placed = tokio::select! {
                biased;
                placed = live.place(passing.want.clone(), passing.bytes, held_until) => placed,
                fault = passing.source.read_ahead() => return Err(fault.into()),
            };
            let mut place = Some(placed.map_err(|why| {
                Refusal::no_place(why, &live.name, live.held(), passing.arrived.elapsed())
            })?);
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + settings.timeout);
            let sent = match passing.upgrade.take() {
                Some(upgrade) => {
                    exchange::upgrade(&mut place, &passing.head, upgrade, deadline).await
                }
                None => exchange::send(&place, &passing.head, &passing.source, deadline).await,
            };
            // Given away to a connection that is no longer one of HTTP.
            let Some(held) = place else {
                return sent
                    .map(|answered| (None, answered))
                    .map_err(|failed| late(&live, settings, &failed));
            };
            if let Some(fault) = sent.as_ref().err().and(passing.source.fault()) {
                return Err(fault.into());
            }
            let cause = judge(&held, &sent);
            let again =
                cause.filter(|cause| may_try_again(*cause, tries, settings, passing, &live));
            let Some(cause) = again else {
                passing.source.commit();
                return match sent {
                    Ok(answered) => Ok((Some(held), answered)),
                    Err(failed) => Err(refusal(&held, settings, &failed)),
                };
            };
            self.metrics.retried(&live.meter, cause.word());
            tracing::debug!(service = %live.name, pod = %held.pod.address, cause = cause.word(), "a request is sent again");
            let want = &mut passing.want;
            want.assigned = Some(Arc::clone(&held.revision.name));
            want.avoid.push(held.pod.address);
            let is_only = !held.revision.has_other(&want.avoid);
            if let Ok(answered) = sent {
                put_aside(held, answered).await;
            } else {
                drop(held);
            }
            if is_only {
                want.avoid.clear();
                let pause = PAUSE * 2_u32.pow(tries.min(5));
                sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            }
            tries += 1;
        }
    }
}

enum Routed {
    /// The router's own answer.
    Answered(Box<Response<Answer>>),
    Passes(Box<Passing>),
}

/// Why a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The pod takes no connection.
    Connect,
    /// The connection was lost.
    Lost,
    /// The pod said that it did not begin.
    Busy,
}

impl Cause {
    const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Lost => "lost",
            Self::Busy => "busy",
        }
    }
}

/// What a try says about its pod, and whether another may follow.
fn judge(place: &Place, sent: &Result<exchange::Answered, Failed>) -> Option<Cause> {
    let (is_fine, cause) = match sent {
        Ok((answer, _)) if is_free_to_retry(answer.status(), answer.headers()) => {
            (true, Some(Cause::Busy))
        }
        Ok((answer, _)) => {
            let is_wanted = answer.headers().contains_key(header::RETRY_AFTER);
            (!answer.status().is_server_error() || is_wanted, None)
        }
        Err(Failed::Connect(_)) => (false, Some(Cause::Connect)),
        Err(Failed::Lost(_)) => (false, Some(Cause::Lost)),
        Err(Failed::Late) => (false, None),
    };
    if is_fine {
        place.pod.succeeded();
    } else if place.revision.failed(&place.pod) {
        place.live.meter.ejections.inc();
        tracing::warn!(
            service = %place.live.name, revision = &*place.revision.name, pod = %place.pod.address,
            "requests to a pod fail: it is left out for a while"
        );
    }
    cause
}

fn may_try_again(
    cause: Cause,
    tries: u32,
    settings: &Settings,
    passing: &Passing,
    live: &Live,
) -> bool {
    let is_safe = match cause {
        Cause::Lost => !settings.stateful,
        Cause::Connect | Cause::Busy => true,
    };
    tries < settings.retries
        && !passing.is_upgrade
        && is_safe
        && passing.source.can_replay()
        && live.budget.withdraw()
}

/// Reads the rest of an answer that is not passed on, if it is short, so that the connection can be used again.
async fn put_aside(place: Place, (answer, connection): exchange::Answered) {
    let read = Limited::new(answer.into_body(), LEFTOVER).collect();
    if let (Ok(Ok(_)), Connection::One(sender)) =
        (timeout(LEFTOVER_PATIENCE, read).await, connection)
    {
        place.pod.pool.put(sender);
    }
}

fn refusal(place: &Place, settings: &Settings, failed: &Failed) -> Refusal {
    let (pod, service) = (place.pod.address, &place.live.name);
    match failed {
        Failed::Connect(error) => Refusal::unavailable(
            "connect",
            1,
            format!("the pod {pod} of {service} cannot be reached: {error}; try again"),
        ),
        Failed::Lost(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "lost",
            format!(
                "the pod {pod} of {service} broke off before it answered; the request may have run"
            ),
        ),
        Failed::Late => late(&place.live, settings, failed),
    }
}

fn late(live: &Live, settings: &Settings, failed: &Failed) -> Refusal {
    let message = format!(
        "{} did not answer within {} s, as long as its requests may take: {failed}",
        live.name,
        settings.timeout.as_secs_f64()
    );
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
}

fn line(request: &Request<Incoming>, client: SocketAddr, arrived: Instant) -> Line {
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

/// The host that a request is for: of an absolute URI (HTTP/2 always has one), else of its `Host`.
fn authority(parts: &Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => parts.headers.get(header::HOST).cloned(),
    }
}

fn check_protocol(parts: &Parts, is_grpc: bool) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        let message = "CONNECT is not served: send the request itself";
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "protocol",
            message,
        ));
    }
    if is_grpc && parts.version < Version::HTTP_2 {
        let message = "gRPC needs HTTP/2, and this request came over HTTP/1";
        return Err(Refusal::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "protocol",
            message,
        ));
    }
    if parts.headers.get_all(header::HOST).iter().count() > 1 {
        let message = "the request has more than one Host";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "host", message));
    }
    Ok(())
}

/// The path without what named the service, with the query; for gRPC with the authority.
fn forwarded(uri: &Uri, prefix: usize, authority: Option<&HeaderValue>) -> Uri {
    let whole = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let path = if prefix == 0 {
        whole
    } else {
        let rest = &whole.as_str()[prefix..];
        let rest = if rest.starts_with('/') {
            rest.to_owned()
        } else {
            format!("/{rest}")
        };
        PathAndQuery::try_from(rest).unwrap_or(whole)
    };
    let mut parts = http::uri::Parts::default();
    if let Some(authority) = authority.and_then(|value| value.as_bytes().try_into().ok()) {
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(authority);
    }
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static("/"))
}

fn choice(
    live: &Live,
    plan: &Plan,
    headers: &HeaderMap,
    meaning: &Meaning<'_>,
) -> Result<Choice, Refusal> {
    let unknown = |what: &str, wanted: &str, there: Vec<&str>| {
        let wanted: String = wanted.chars().take(100).collect();
        let there = if there.is_empty() {
            "none".to_owned()
        } else {
            there.join(", ")
        };
        let message = format!("{} has no {what} {wanted}; there is: {there}", live.name);
        Refusal::new(StatusCode::NOT_FOUND, what_word(what), message)
    };
    if let Some(wanted) = headers.get(REVISION) {
        if plan.settings().revision_header == RevisionHeader::Deny {
            let message = format!(
                "{} does not let requests choose a revision: leave x-ortolan-revision out, or allow it with revisionHeader: Allow",
                live.name
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, "revision", message));
        }
        let wanted = String::from_utf8_lossy(wanted.as_bytes());
        return plan
            .of_revision(&wanted)
            .map_err(|there| unknown("revision", &wanted, there));
    }
    match &meaning.version {
        Some(version) => plan
            .of_version(version)
            .map_err(|there| unknown("version", version, there)),
        None => Ok(Choice::Split),
    }
}

fn what_word(what: &str) -> &'static str {
    if what == "version" {
        "version"
    } else {
        "revision"
    }
}

/// What the router answers by itself while there is no pod: yes, the service is there (it wakes), and nothing that
/// only a pod could know, for which none is woken.
fn at_zero(
    live: &Live,
    purpose: Purpose,
    is_grpc: bool,
) -> Option<Result<Response<Answer>, Refusal>> {
    match purpose {
        Purpose::Health if is_grpc => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut answer = Response::new(Answer::grpc(Bytes::from_static(YES), trailers));
            let kind = HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            Some(Ok(answer))
        }
        Purpose::Health => {
            let body = Bytes::from_static(br#"{"ready":true,"live":true}"#);
            let mut answer = Response::new(Answer::whole(Full::new(body)));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(header::CONTENT_TYPE, json);
            Some(Ok(answer))
        }
        Purpose::Metrics => {
            let message = format!(
                "{} has no pod whose metrics could be shown, and none is woken for that",
                live.name
            );
            Some(Err(Refusal::unavailable("metrics", 60, message)))
        }
        Purpose::Work | Purpose::Management => None,
    }
}

/// The key of a request's session, and the cookie that its client is to get.
fn session(settings: &Settings, headers: &HeaderMap) -> (Option<u64>, Option<HeaderValue>) {
    match &settings.session {
        None => (None, None),
        Some(Session::Header(name)) => (
            headers.get(name).map(|value| split::hash(value.as_bytes())),
            None,
        ),
        Some(Session::Cookie(name)) => match headers::cookie(headers, name) {
            Some(value) => (Some(split::hash(value.as_bytes())), None),
            None => {
                // No secret: it says nothing but which requests belong together.
                let value = format!("{:032x}", fastrand::u128(..));
                let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
                (
                    Some(split::hash(value.as_bytes())),
                    HeaderValue::try_from(cookie).ok(),
                )
            }
        },
    }
}
