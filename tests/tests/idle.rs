//! An operator with nothing to do asks the API server for nothing.

use std::{collections::BTreeMap, time::Duration};

use ortolan_tests::{
    Cluster, Fate, Operator, audit,
    tap::Tap,
    world::{definition_stays, spec, world},
};

#[test]
fn twenty_services_at_rest_cause_no_request_for_a_minute_but_renewals() {
    let _undisturbed = definition_stays();
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::with(&w, &["--leader-elect", "true"], Tap::default());
        for n in 0..20 {
            w.create(&format!("m{n}"), spec(&n.to_string())).await;
        }
        for n in 0..20 {
            let name = format!("m{n}");
            w.until_ready_is(&name, "True", "Serving").await;
            w.until_event(&name, "Promoted", "").await;
        }
        // What the last writes set off is over.
        let mut writes = operator.tap.writes().len();
        w.until("the last write is made", async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let before = std::mem::replace(&mut writes, operator.tap.writes().len());
            if before == writes {
                Ok(())
            } else {
                Err("it still writes".into())
            }
        })
        .await;

        let mark = audit::mark();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let requests = audit::since(mark, &operator.agent);
        let renewals = requests.iter().filter(|r| r.resource == "leases").count();
        assert!(
            renewals > 10,
            "the Lease is renewed, and the log shows it: {requests:#?}"
        );
        let others: Vec<_> = requests.iter().filter(|r| !r.is_upkeep()).collect();
        assert!(others.is_empty(), "{others:#?}");
        let mut verbs = BTreeMap::new();
        for request in requests.iter().filter(|r| r.resource == "leases") {
            *verbs.entry(request.verb.as_str()).or_insert(0) += 1;
        }
        assert_eq!(
            verbs.keys().collect::<Vec<_>>(),
            [&"update"],
            "a leader need not read its Lease"
        );
    });
}
