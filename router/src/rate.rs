//! How many requests one client may send: a bucket for each address, in bounded memory.
//!
//! A bucket holds a burst of requests and fills at a rate. It is kept as the one instant at which it is full again (the
//! generic cell rate algorithm, ITU-T I.371), so that it needs no timer. Inputs: the address that a connection comes
//! from, `X-Forwarded-For`, the time. Output: the request may pass, or how long its client waits.
//!
//! Invariants: at most [`CLIENTS`] are remembered, and whoever was not seen for longest is forgotten first; a header is
//! believed only from proxies that are trusted; a request that is refused takes nothing from its client's bucket.
//! The crate `governor` has the same algorithm, but keeps every address until somebody sweeps.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Clients that are remembered: about 4 MiB.
pub const CLIENTS: usize = 1 << 16;
/// Threads that look at different clients seldom wait for each other.
const SHARDS: usize = 16;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses of proxies that are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(Self).map_err(|_| {
            format!(
                "{text:?} is no address and no network: write for instance 10.0.0.0/8 or 192.0.2.7"
            )
        })
    }
}

/// Who is counted together. A client with IPv6 has a whole /64 and may take another address of it at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    Four(u32),
    Six(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(four) => Self::Four(four.into()),
            IpAddr::V6(six) => Self::Six((u128::from(six) >> 64) as u64),
        }
    }
}

/// When buckets are full again, in nanoseconds. What was seen of late, and what was seen before that: when there is no
/// room, the older half is forgotten as a whole.
#[derive(Debug, Default)]
struct Shard {
    new: HashMap<Client, u64>,
    old: HashMap<Client, u64>,
}

impl Shard {
    fn full_at(&mut self, client: Client) -> u64 {
        let known = self.new.get(&client).copied();
        known.or_else(|| self.old.remove(&client)).unwrap_or(0)
    }

    fn set(&mut self, client: Client, full_at: u64, room: usize) {
        if self.new.len() >= room && !self.new.contains_key(&client) {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(client, full_at);
    }
}

/// What clients may send.
#[derive(Debug)]
pub struct Limiter {
    rate: NonZeroU32,
    /// Nanoseconds for one request, and for a whole bucket.
    each: u64,
    whole: u64,
    trusted: Vec<Network>,
    began: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Limiter {
    /// `rate` requests a second, `burst` at once.
    #[must_use]
    pub fn new(rate: NonZeroU32, burst: Option<NonZeroU32>, trusted: Vec<Network>) -> Self {
        let each = (1_000_000_000 / u64::from(rate.get())).max(1);
        Self {
            rate,
            each,
            whole: each.saturating_mul(burst.unwrap_or(rate).get().into()),
            trusted,
            began: Instant::now(),
            hasher: RandomState::new(),
            shards: Default::default(),
        }
    }

    /// Requests a second.
    #[must_use]
    pub const fn rate(&self) -> u32 {
        self.rate.get()
    }

    /// Takes a request out of a client's bucket.
    ///
    /// # Errors
    /// How long the client has to wait until there is one.
    pub fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = Client::from(client);
        let now = now.saturating_duration_since(self.began).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let shard = self.hasher.hash_one(client) as usize % SHARDS;
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let full_at = shard.full_at(client).max(now);
        let then = full_at.saturating_add(self.each);
        let late = then.saturating_sub(now).saturating_sub(self.whole);
        let passes = late == 0;
        shard.set(
            client,
            if passes { then } else { full_at },
            CLIENTS / SHARDS / 2,
        );
        if passes {
            Ok(())
        } else {
            Err(Duration::from_nanos(late))
        }
    }

    /// Whose request it is: of `X-Forwarded-For` the last address that no trusted proxy has, where a trusted one wrote it.
    #[must_use]
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.ip();
        let values = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut hops = values
            .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','))
            .map(address);
        while self.is_trusted(client) {
            match hops.next() {
                Some(Some(hop)) => client = hop,
                // What stands there is no address: whoever wrote it is all that is known.
                Some(None) | None => break,
            }
        }
        client
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|one| one.0.contains(&address))
    }
}

/// An address, with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    let with_port = || hop.parse::<SocketAddr>().map(|address| address.ip());
    bare.unwrap_or(hop).parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(rate: u32, burst: u32, trusted: &[&str]) -> Limiter {
        let trusted = trusted.iter().map(|one| one.parse().unwrap()).collect();
        Limiter::new(
            NonZeroU32::new(rate).unwrap(),
            NonZeroU32::new(burst),
            trusted,
        )
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_then_the_rate_and_what_is_refused_costs_nothing() {
        let limiter = limiter(10, 3, &[]);
        let now = Instant::now();
        let me = ip("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(limiter.take(me, now), Ok(()));
        }
        for _ in 0..50 {
            let wait = limiter.take(me, now).unwrap_err();
            assert!(wait <= SECOND / 10 && wait > SECOND / 11, "{wait:?}");
        }
        assert_eq!(limiter.take(me, now + SECOND / 10), Ok(()));
        assert!(limiter.take(me, now + SECOND / 10).is_err());
        assert_eq!(limiter.take(ip("192.0.2.2"), now), Ok(()), "another client");
        let later = now + SECOND * 9;
        for _ in 0..3 {
            assert_eq!(limiter.take(me, later), Ok(()));
        }
        assert!(limiter.take(me, later).is_err(), "never more than a burst");
    }

    #[test]
    fn without_a_burst_of_its_own_it_is_the_requests_of_a_second() {
        let limiter = Limiter::new(NonZeroU32::new(5).unwrap(), None, Vec::new());
        let now = Instant::now();
        let passed = (0..20).filter(|_| limiter.take(ip("::1"), now).is_ok());
        assert_eq!(passed.count(), 5);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_the_one_of_ipv4() {
        let same = |a: &str, b: &str| Client::from(ip(a)) == Client::from(ip(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn what_a_client_says_of_itself_is_believed_only_through_trusted_proxies() {
        let limiter = limiter(1, 1, &["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
        for (peer, headers, client) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            // The client itself wrote the first.
            ("10.1.2.3", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            (
                "10.1.2.3",
                &["1.1.1.1, 198.51.100.1 , 192.0.2.7"],
                "198.51.100.1",
            ),
            ("10.1.2.3", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.1.2.3", &["[2001:db9::1]:80"], "2001:db9::1"),
            ("10.1.2.3", &["[2001:db9::1]"], "2001:db9::1"),
            ("2001:db8::5", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["unknown"], "10.1.2.3"),
            ("10.1.2.3", &["1.1.1.1, , 192.0.2.7"], "192.0.2.7"),
            ("10.1.2.3", &["10.9.9.9"], "10.9.9.9"),
        ] {
            let mut map = HeaderMap::new();
            for value in headers {
                map.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            let peer = SocketAddr::new(ip(peer), 4711);
            assert_eq!(limiter.client(peer, &map), ip(client), "{peer} {headers:?}");
        }
    }

    #[test]
    fn however_many_clients_come_memory_is_bounded_and_who_comes_all_the_time_is_remembered() {
        let limiter = limiter(1, 1, &[]);
        let now = Instant::now();
        let busy = ip("192.0.2.1");
        assert_eq!(limiter.take(busy, now), Ok(()));
        for n in 0..4 * CLIENTS as u32 {
            let _ = limiter.take(IpAddr::from(n.to_be_bytes()), now);
            assert!(n % 64 != 0 || limiter.take(busy, now).is_err(), "after {n}");
        }
        let known = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.new.len() + shard.old.len()
        };
        let known: usize = limiter.shards.iter().map(known).sum();
        assert!(known <= CLIENTS && known > CLIENTS / 4, "{known}");
    }

    #[test]
    fn what_is_no_network_is_told_how_to_write_one() {
        for text in ["10.0.0.0/8", " 192.0.2.7 ", "2001:db8::/32", "::1"] {
            assert!(text.parse::<Network>().is_ok(), "{text}");
        }
        for text in ["", "10.0.0.0/33", "proxy.example.com", "10.0.0"] {
            let wrong = text.parse::<Network>().unwrap_err();
            assert!(wrong.contains("write for instance 10.0.0.0/8"), "{wrong}");
        }
    }

    proptest! {
        /// In any stretch of time no more than a burst and what the rate brings.
        #[test]
        fn never_more_than_burst_and_rate(rate in 1_u32..1000, burst in 1_u32..50, gaps in prop::collection::vec(0_u64..20_000, 1..300)) {
            let limiter = limiter(rate, burst, &[]);
            let mut now = Instant::now();
            let mut passed = Vec::new();
            for gap in gaps {
                now += Duration::from_micros(gap);
                if limiter.take(ip("::1"), now).is_ok() {
                    passed.push(now);
                }
            }
            for (i, first) in passed.iter().enumerate() {
                for (j, last) in passed.iter().enumerate().skip(i) {
                    let may = f64::from(burst) + (*last - *first).as_secs_f64() * f64::from(rate) + 1e-3;
                    prop_assert!((j - i + 1) as f64 <= may, "{} in {:?}", j - i + 1, *last - *first);
                }
            }
        }
    }
}
