use std::time::Duration;

use proptest::prelude::*;

use super::*;

const WHOLE: &str = "
routers: {live: 2, index: 1}
services:
  demo/cats:
    hosts: [cats.example.com]
    routing: {timeout: 10s, retries: 1, holdTimeout: 1m 30s, balancing: {kind: RoundRobin}, session: {header: x-user}, revisionHeader: Allow, stateful: true}
    revisions:
    - name: cats-1
      weight: 90
      maxConcurrency: 8
      versions: ['1']
      endpoints: ['127.0.0.1:8081', {address: '[::1]:8082', ready: false, serving: true, terminating: true}]
    - {name: cats-2, weight: 10}
    generation: 7
  demo/dogs: {}
  demo/birds: {routing: {balancing: {kind: Consistent, header: x-flock}}}
";

fn read(text: &str) -> Result<Table, String> {
    let table: Table = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    table.check().map_err(|error| error.to_string())?;
    Ok(table)
}

#[test]
fn a_table_reads_as_it_is_written_and_again_from_json() {
    let table = read(WHOLE).unwrap();
    let cats = &table.services[&ServiceName::new("demo", "cats").unwrap()];
    assert_eq!(cats.routing.hold_timeout, Duration::from_secs(90));
    assert_eq!(cats.routing.session, Some(Session::Header("x-user".into())));
    assert_eq!(cats.routing.balancing, Balancing::RoundRobin);
    let birds = &table.services[&ServiceName::new("demo", "birds").unwrap()];
    let header = "x-flock".into();
    assert_eq!(birds.routing.balancing, Balancing::Consistent { header });
    assert_eq!(cats.revisions[0].weight.get(), 90);
    assert_eq!(cats.generation, Some(7));
    let [first, second] = cats.revisions[0].endpoints[..] else {
        panic!("two endpoints");
    };
    assert_eq!(first, Endpoint::ready("127.0.0.1:8081".parse().unwrap()));
    assert!(second.serving && second.terminating && !second.ready);
    let dogs = &table.services[&ServiceName::new("demo", "dogs").unwrap()];
    assert_eq!(dogs.routing, Settings::default());
    let json = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table);
    assert_eq!(read(&json).unwrap(), table, "JSON is YAML");
}

#[test]
fn what_is_wrong_with_a_table_is_said() {
    for (text, words) in [
        ("services: {cats: {}}", "write namespace/name"),
        ("services: {demo/Cats: {}}", "write namespace/name"),
        (
            "services: {a/b: {revisions: [{name: x, weight: 101}]}}",
            "0 to 100, not 101",
        ),
        (
            "services: {a/b: {hosts: [X.y]}, a/c: {hosts: [x.y]}}",
            "belongs to a/b and to a/c",
        ),
        (
            "services: {a/b: {revisions: [{name: x}, {name: x}]}}",
            "the revision x twice",
        ),
        ("routers: {live: 2, index: 2}", "indices begin with 0"),
        (
            "services: {a/b: {routing: {balancing: {kind: Consistent, header: 'x y'}}}}",
            "\"x y\" cannot be the name of a header",
        ),
        (
            "services: {a/b: {routing: {balancing: {kind: Ring}}}}",
            "LeastRequest",
        ),
        (
            "services: {a/b: {revisions: [{name: x, endpoints: [localhost:80]}]}}",
            "an address such as 10.0.0.7:8080",
        ),
        (
            "services: {a/b: {routing: {session: {cookie: 'a b'}}}}",
            "cannot be the name of a cookie",
        ),
        ("services: {a/b: {weights: 3}}", "weights"),
        ("services: {a/b: {routing: {timeout: soon}}}", "soon"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn ready_pods_come_before_those_that_only_still_serve() {
    let pod = |port: u16, ready, serving, terminating| Endpoint {
        address: ([10, 0, 0, 1], port).into(),
        ready,
        serving,
        terminating,
    };
    let (ready, leaving, starting) = (
        pod(1, true, true, false),
        pod(2, false, true, true),
        pod(3, false, false, false),
    );
    let usable = |endpoints: &[Endpoint]| {
        let endpoints = endpoints.to_vec();
        Revision {
            endpoints,
            ..Revision::default()
        }
        .usable()
    };
    assert_eq!(usable(&[leaving, ready, starting]), [ready]);
    assert_eq!(usable(&[leaving, starting]), [leaving]);
    assert!(usable(&[starting]).is_empty());
}

proptest! {
    #[test]
    fn the_parts_of_all_routers_are_all_places_and_nobody_has_none(max in 1_u32..500, live in 1_u32..20) {
        let (max, live) = (NonZeroU32::new(max).unwrap(), NonZeroU32::new(live).unwrap());
        let parts: Vec<u32> = (0..live.get()).map(|index| Routers { live, index }.share(max)).collect();
        prop_assert!(parts.iter().all(|part| *part >= 1));
        let all: u32 = parts.iter().sum();
        prop_assert_eq!(all, max.get().max(live.get()));
        prop_assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
    }
}
