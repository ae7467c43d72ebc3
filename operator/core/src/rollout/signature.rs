//! Whether every request that the stable revision answers is one that the candidate answers in the same form.
//!
//! Inputs and outputs are matched by name. A request names its inputs and may name outputs; so an input that is new or
//! gone, another datatype, a dimension that became fixed or another, and an output that is gone are incompatible. An
//! output more, and an input's dimension that any size will do for now, are wider.

use ortolan_crds::{ModelStatus, TensorStatus};

use super::observed::Signature;

/// Compares what pods of both revisions said of their model.
#[must_use]
pub fn compare(stable: &ModelStatus, candidate: &ModelStatus) -> Signature {
    let mut wider = Vec::new();
    let mut against = Vec::new();
    tensors(
        "input",
        &stable.inputs,
        &candidate.inputs,
        &mut wider,
        &mut against,
    );
    tensors(
        "output",
        &stable.outputs,
        &candidate.outputs,
        &mut wider,
        &mut against,
    );
    match (against.is_empty(), wider.is_empty()) {
        (false, _) => Signature::Incompatible(against.join("; ")),
        (true, false) => Signature::Widened(wider.join("; ")),
        (true, true) => Signature::Same,
    }
}

fn tensors(
    what: &str,
    stable: &[TensorStatus],
    candidate: &[TensorStatus],
    wider: &mut Vec<String>,
    against: &mut Vec<String>,
) {
    for old in stable {
        let name = &old.name;
        let Some(new) = candidate.iter().find(|new| new.name == *name) else {
            against.push(format!("the {what} {name:?} is gone"));
            continue;
        };
        if old.datatype != new.datatype {
            let (from, to) = (&old.datatype, &new.datatype);
            against.push(format!("the {what} {name:?} is {to}, not {from}"));
        } else if old.shape != new.shape {
            let (from, to) = (&old.shape, &new.shape);
            let difference = format!("the {what} {name:?} has the shape {to:?}, not {from:?}");
            match fits(what, &old.shape, &new.shape) {
                true => wider.push(difference),
                false => against.push(difference),
            }
        }
    }
    for new in candidate {
        if stable.iter().any(|old| old.name == new.name) {
            continue;
        }
        let message = format!("the {what} {:?} is new", new.name);
        match what {
            "input" => against.push(message),
            _ => wider.push(message),
        }
    }
}

/// Whether what fitted the old shape fits the new one: an input may take any size now, and an output may promise one
/// size of many.
fn fits(what: &str, old: &[i64], new: &[i64]) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| {
            old == new
                || match what {
                    "input" => *new == -1,
                    _ => *old == -1,
                }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorStatus {
        TensorStatus {
            name: name.into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
        }
    }

    fn model(inputs: &[TensorStatus], outputs: &[TensorStatus]) -> ModelStatus {
        ModelStatus {
            version: None,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            opset: 17,
        }
    }

    #[test]
    fn what_old_requests_would_miss_is_incompatible_and_what_they_would_not_notice_is_wider() {
        let x = || tensor("x", "FP32", &[-1, 4]);
        let y = || tensor("y", "FP32", &[-1, 3]);
        let stable = model(&[x()], &[y()]);
        let cases = [
            (model(&[x()], &[y()]), "same"),
            (
                model(&[x()], &[y(), tensor("z", "INT64", &[-1])]),
                "wider: the output \"z\" is new",
            ),
            (
                model(&[tensor("x", "FP32", &[-1, -1])], &[y()]),
                "wider: the input \"x\" has the shape [-1, -1], not [-1, 4]",
            ),
            (
                model(&[x()], &[tensor("y", "FP32", &[1, 3])]),
                "wider: the output \"y\" has the shape [1, 3], not [-1, 3]",
            ),
            (
                model(&[tensor("x", "FP32", &[1, 4])], &[y()]),
                "against: the input \"x\" has the shape [1, 4], not [-1, 4]",
            ),
            (
                model(&[tensor("x", "FP32", &[-1, 5])], &[y()]),
                "against: the input \"x\" has the shape [-1, 5], not [-1, 4]",
            ),
            (
                model(&[tensor("x", "FP32", &[-1, 4, 1])], &[y()]),
                "against: the input \"x\" has the shape [-1, 4, 1], not [-1, 4]",
            ),
            (
                model(&[tensor("x", "FP16", &[-1, 4])], &[y()]),
                "against: the input \"x\" is FP16, not FP32",
            ),
            (
                model(&[tensor("w", "FP32", &[-1, 4])], &[y()]),
                "against: the input \"x\" is gone; the input \"w\" is new",
            ),
            (
                model(&[x(), tensor("w", "FP32", &[1])], &[y()]),
                "against: the input \"w\" is new",
            ),
            (
                model(&[x()], &[tensor("y", "FP32", &[-1, 4])]),
                "against: the output \"y\" has the shape [-1, 4], not [-1, 3]",
            ),
            (model(&[x()], &[]), "against: the output \"y\" is gone"),
        ];
        for (candidate, expected) in cases {
            let found = match compare(&stable, &candidate) {
                Signature::Unknown => "unknown".to_owned(),
                Signature::Same => "same".to_owned(),
                Signature::Widened(why) => format!("wider: {why}"),
                Signature::Incompatible(why) => format!("against: {why}"),
            };
            assert_eq!(found, expected);
        }
    }
}
