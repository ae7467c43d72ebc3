//! `status.rollout.shadow`, as the table has it. What this router does not know (a newer operator's kind) is left out:
//! the requests themselves go on.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    compare::Compare,
    table::{Mirror, Percent},
};

#[derive(Deserialize)]
struct Written {
    revision: String,
    percent: i64,
    compare: Compare,
}

/// Without pods, which stand elsewhere.
pub(super) fn mirror(written: &Value) -> Option<Mirror> {
    let read = Written::deserialize(written).map_err(|error| error.to_string());
    let read = read.and_then(|written| {
        let percent = Percent::new(written.percent).map_err(|error| error.to_string())?;
        Ok(Mirror {
            revision: written.revision,
            percent,
            compare: written.compare,
            max_concurrency: None,
            endpoints: Vec::new(),
        })
    });
    match read {
        Ok(mirror) => Some(mirror),
        Err(error) => {
            tracing::warn!("nothing is copied: status.rollout.shadow cannot be used: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use ortolan_crds::{CompareKind, ComparedStatus, ShadowStatus};
    use serde_json::json;

    use super::*;
    use crate::compare::Kind;

    #[test]
    fn what_the_operator_writes_is_read() {
        for (written, kind) in [
            (CompareKind::Classification, Kind::Classification),
            (CompareKind::Regression, Kind::Regression),
            (CompareKind::Embedding, Kind::Embedding),
            (CompareKind::Exact, Kind::Exact),
        ] {
            for (tolerance, number) in [(Some(0.25), 0.25), (None, 0.001)] {
                let status = ShadowStatus {
                    revision: "cats-2".into(),
                    percent: 7,
                    compare: ComparedStatus {
                        kind: written,
                        tolerance,
                        output: Some("scores".into()),
                    },
                };
                let read = mirror(&serde_json::to_value(status).unwrap()).unwrap();
                assert_eq!((&*read.revision, read.percent.get()), ("cats-2", 7));
                assert_eq!(read.compare.kind, kind);
                assert_eq!(f64::from(read.compare.tolerance), number);
                assert_eq!(read.compare.output.as_deref(), Some("scores"));
            }
        }
    }

    #[test]
    fn what_is_not_known_copies_nothing() {
        let fine = json!({"revision": "cats-2", "percent": 7, "compare": {"kind": "Exact"}});
        assert!(mirror(&fine).is_some());
        for (key, value) in [
            ("percent", json!(0)),
            ("percent", json!("7")),
            ("compare", json!({"kind": "Taste"})),
            ("compare", json!({"kind": "Exact", "tolerance": -1})),
            ("revision", json!(null)),
        ] {
            let mut wrong = fine.clone();
            wrong[key] = value;
            assert_eq!(mirror(&wrong), None, "{wrong}");
        }
    }
}
