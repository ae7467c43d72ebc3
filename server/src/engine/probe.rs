//! Whether requests may run together, and whether it pays: found by running the model, not by believing it.
//!
//! A first dimension that is free may be time, or be averaged away: put together, such requests would get
//! wrong rows. So three rows run as one and apart, and must give the same. On the processor rows side by
//! side gain nothing once a run is long (measured, docs/performance.md), so that is measured, too.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use half::{bf16, f16};
use ortolan_model::settings::{Batching, Mode};

use super::runner::Runner;
use crate::{
    batch::Policy,
    infer::Request,
    options::Provider,
    output::Output,
    signature::{Signature, show_shape},
    tensor::{Elements, Tensor, View, each_buffer},
};

/// Rows that a run may have where nobody says otherwise and batching pays: of a small perceptron 32 rows take
/// 1.3 times as long as one, and what 64 would gain beyond that is nothing.
const DEFAULT_ROWS: usize = 32;
/// Runs that are longer than this are not measured further: their fixed part no longer counts (of EfficientNet,
/// 9 ms, and of MiniLM with 128 tokens, 32 ms, eight rows together took as long as apart).
const SHORT: Duration = Duration::from_millis(2);
/// So many rows are timed against one.
const SEVERAL: usize = 8;
/// Larger than what another order of additions does (10⁻⁶), smaller than what dynamic quantisation does (10⁻²).
const TOLERANCE: f64 = 1e-4;

/// What the probe found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rows {
    /// Rows can be put together, and one row and eight of them take so long.
    Together {
        one: Duration,
        several: Option<Duration>,
    },
    /// Rows can be put together, but what they give then differs.
    Differ(String),
    /// Rows cannot be put together.
    Apart(String),
}

/// What is known without a run.
pub(super) fn unseen(signature: &Signature) -> Rows {
    let words = "the warm-up is off, so that rows were not compared";
    fixed(signature).unwrap_or_else(|| Rows::Differ(words.to_owned()))
}

fn fixed(signature: &Signature) -> Option<Rows> {
    let words = "the first dimension of some input or output is fixed";
    (!signature.is_batchable()).then(|| Rows::Apart(words.to_owned()))
}

/// Runs the model a few times. `request` is what it was warmed up with.
pub(super) fn probe(runner: &mut Runner, signature: &Signature, request: &Request) -> Rows {
    if let Some(rows) = fixed(signature) {
        return rows;
    }
    let one = rows_of(request, 0, 1);
    let Some(took) = fastest(runner, &one) else {
        let words = "the model does not run on invented inputs, so that rows cannot be compared";
        return Rows::Differ(words.to_owned());
    };
    match compare(runner, request) {
        Ok(()) => {}
        Err(rows) => return rows,
    }
    let several = (took <= SHORT).then(|| fastest(runner, &rows_of(request, 0, SEVERAL)));
    Rows::Together {
        one: took,
        several: several.flatten(),
    }
}

/// The policy, and the reason for it in words.
pub(super) fn decide(
    wanted: &Batching,
    rows: &Rows,
    active: Provider,
    has_one_shape: bool,
) -> (Policy, String) {
    let alone = |why: String| (Policy::ALONE, why);
    let is_asked_for = wanted.mode == Some(Mode::Together);
    let (one, several) = match rows {
        _ if wanted.mode == Some(Mode::Alone) || wanted.max == Some(1) => {
            return alone("no: switched off".to_owned());
        }
        Rows::Apart(why) => return alone(format!("no: {why}")),
        Rows::Differ(why) if !is_asked_for => return alone(format!("no: {why}")),
        Rows::Differ(_) => (Duration::ZERO, None),
        Rows::Together { one, several } => (*one, *several),
    };
    if !is_asked_for && !active.is_gpu() {
        if !has_one_shape {
            let words = "no: sizes other than the first are free, so that it may not pay; --max-batch N turns it on";
            return alone(words.to_owned());
        }
        if several.is_none_or(|several| several > one * SEVERAL as u32 / 2) {
            return alone(format!(
                "no: it does not pay, one row takes {one:.1?} on the processor; --max-batch N turns it on"
            ));
        }
    }
    let max_rows = wanted.max.unwrap_or(DEFAULT_ROWS);
    let preferred = wanted.preferred.iter().copied();
    let policy = Policy {
        max_rows,
        preferred: preferred.filter(|rows| *rows <= max_rows).collect(),
        max_delay: wanted.max_delay.unwrap_or_default(),
    };
    (policy, format!("yes, up to {max_rows} rows together"))
}

/// The shortest of three runs; `None` when one fails.
fn fastest(runner: &mut Runner, request: &Request) -> Option<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        runner.run(request.clone()).ok()?;
        shortest = shortest.min(start.elapsed());
        if shortest > SHORT {
            break;
        }
    }
    Some(shortest)
}

/// Three rows as one against the same rows in two runs.
fn compare(runner: &mut Runner, request: &Request) -> Result<(), Rows> {
    let mut run = |from, to| {
        let outputs = runner.run(rows_of(request, from, to));
        outputs
            .map_err(|error| Rows::Apart(format!("a run with {} rows failed: {error}", to - from)))
    };
    let (whole, first, rest) = (run(0, 3)?, run(0, 1)?, run(1, 3)?);
    for (index, output) in whole.iter().enumerate() {
        let Some(parts) = output.split(&[1, 2]) else {
            return Err(Rows::Apart(format!(
                "3 rows in give an output of the shape {}",
                show_shape(output.shape())
            )));
        };
        for (part, alone) in parts.iter().zip([&first[index], &rest[index]]) {
            agree(part, alone)?;
        }
    }
    Ok(())
}

fn agree(part: &Output, alone: &Output) -> Result<(), Rows> {
    if part.shape() != alone.shape() {
        return Err(Rows::Apart(format!(
            "a row's output has the shape {} beside others and {} alone",
            show_shape(part.shape()),
            show_shape(alone.shape())
        )));
    }
    let read = |output: &Output| output.elements().map(|view| view.to_elements());
    let (Ok(part), Ok(alone)) = (read(part), read(alone)) else {
        return Err(Rows::Apart("an output cannot be read".to_owned()));
    };
    match difference(&part, &alone) {
        distance if distance <= TOLERANCE => Ok(()),
        distance => Err(Rows::Differ(format!(
            "a row's result depends on the rows beside it (by {distance:.1e} of the largest value)"
        ))),
    }
}

/// The largest difference between two tensors, relative to the largest value; of what is no float 0 or 1.
fn difference(a: &Elements, b: &Elements) -> f64 {
    let (Some(a_floats), Some(b_floats)) = (floats(a.view()), floats(b.view())) else {
        return if a == b { 0.0 } else { 1.0 };
    };
    let largest = a_floats
        .iter()
        .filter(|a| a.is_finite())
        .fold(0.0_f64, |m, a| m.max(a.abs()));
    let pairs = a_floats.iter().zip(&b_floats);
    let differences = pairs.map(|(a, b)| match () {
        () if a == b || (a.is_nan() && b.is_nan()) => 0.0,
        () if a.is_finite() && b.is_finite() => (a - b).abs() / largest.max(f64::MIN_POSITIVE),
        () => f64::INFINITY,
    });
    differences.fold(0.0, f64::max)
}

fn floats(view: View<'_>) -> Option<Vec<f64>> {
    Some(match view {
        View::Fp32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        View::Fp64(values) => values.to_vec(),
        View::Fp16(values) => values.iter().map(|value| value.to_f64()).collect(),
        View::Bf16(values) => values.iter().map(|value| value.to_f64()).collect(),
        _ => return None,
    })
}

/// Rows `from` to `to` of invented inputs in the shape of the warm-up's.
fn rows_of(request: &Request, from: usize, to: usize) -> Request {
    let invent = |tensor: &Tensor| {
        let row = tensor.elements.len()
            / tensor
                .shape
                .first()
                .map_or(1, |rows| (*rows).max(1) as usize);
        let mut shape = tensor.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = (to - from) as i64;
        }
        let mut elements = Elements::with_capacity(tensor.elements.view().datatype(), 0);
        each_buffer!(&mut elements, buffer => {
            Invented::fill(buffer, from * row..to * row);
        });
        Tensor { shape, elements }
    };
    let inputs = request.inputs.iter();
    Request::new(inputs.map(|tensor| tensor.as_ref().map(invent)).collect())
}

/// Values that differ from row to row and that most models take: floats of -1 to 1; 0 and 1 where they may be
/// indices.
trait Invented: Sized {
    fn invented(place: usize) -> Self;

    fn fill(buffer: &mut Vec<Self>, places: Range<usize>) {
        buffer.extend(places.map(Self::invented));
    }
}

/// Scattered evenly over -1 to 1.
fn scattered(place: usize) -> f32 {
    (place * 7919 % 1009) as f32 / 504.0 - 1.0
}

fn bit(place: usize) -> bool {
    // Neither rows of any length nor columns are all alike.
    place * 7919 % 1009 % 2 == 1
}

macro_rules! whole {
    ($($kind:ty),+) => {$(
        impl Invented for $kind {
            fn invented(place: usize) -> Self {
                Self::from(bit(place))
            }
        }
    )+};
}
whole!(bool, u8, u16, u32, u64, i8, i16, i32, i64);

impl Invented for f32 {
    fn invented(place: usize) -> Self {
        scattered(place)
    }
}

impl Invented for f64 {
    fn invented(place: usize) -> Self {
        scattered(place).into()
    }
}

impl Invented for f16 {
    fn invented(place: usize) -> Self {
        Self::from_f32(scattered(place))
    }
}

impl Invented for bf16 {
    fn invented(place: usize) -> Self {
        Self::from_f32(scattered(place))
    }
}

impl Invented for String {
    fn invented(place: usize) -> Self {
        if bit(place) { "a" } else { "b" }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(mode: Option<Mode>, max: Option<usize>) -> Batching {
        Batching {
            mode,
            max,
            ..Batching::default()
        }
    }

    fn together(one: u64, several: Option<u64>) -> Rows {
        let several = several.map(Duration::from_micros);
        let one = Duration::from_micros(one);
        Rows::Together { one, several }
    }

    #[test]
    fn rows_run_together_where_it_pays_or_somebody_asked_for_it() {
        let differ = Rows::Differ("it differs".into());
        let apart = Rows::Apart("it is fixed".into());
        let (on, off) = (Some(Mode::Together), Some(Mode::Alone));
        use Provider::{CPU, CUDA, OpenVINO};
        let table = [
            (asked(None, None), together(8, Some(9)), CPU, true, 32),
            (asked(None, None), together(8, Some(33)), CPU, true, 1),
            (asked(None, None), together(9000, None), CPU, true, 1),
            (asked(None, None), together(8, Some(9)), CPU, false, 1),
            (asked(None, None), together(9000, None), CUDA, false, 32),
            (asked(None, None), together(9000, None), OpenVINO, true, 1),
            (asked(on, Some(4)), together(9000, None), CPU, false, 4),
            (asked(on, None), differ.clone(), CPU, true, 32),
            (asked(None, Some(4)), differ, CPU, true, 1),
            (asked(on, Some(4)), apart, CUDA, true, 1),
            (asked(off, Some(4)), together(8, Some(9)), CPU, true, 1),
            (asked(on, Some(1)), together(8, Some(9)), CPU, true, 1),
        ];
        for (wanted, rows, active, has_one_shape, expected) in table {
            let (policy, why) = decide(&wanted, &rows, active, has_one_shape);
            assert_eq!(policy.max_rows, expected, "{wanted:?} {rows:?}: {why}");
            assert_eq!(why.starts_with("yes"), expected > 1, "{why}");
        }
    }

    #[test]
    fn preferred_sizes_above_the_bound_are_left_out() {
        let wanted = Batching {
            mode: Some(Mode::Together),
            max: Some(8),
            preferred: vec![4, 8, 16],
            max_delay: Some(Duration::from_millis(3)),
        };
        let (policy, _) = decide(&wanted, &together(8, None), Provider::CPU, true);
        assert_eq!(policy.preferred, [4, 8]);
        assert_eq!(policy.max_delay, Duration::from_millis(3));
    }

    #[test]
    fn a_difference_is_relative_to_the_largest_value() {
        let floats = |values: &[f32]| Elements::Fp32(values.to_vec());
        let far = difference(&floats(&[100.0, 1.0]), &floats(&[100.0, 2.0]));
        assert!((far - 0.01).abs() < 1e-9, "{far}");
        let same = [f32::NAN, f32::INFINITY, 0.0];
        assert_eq!(difference(&floats(&same), &floats(&same)), 0.0);
        assert_eq!(
            difference(&floats(&[f32::NAN]), &floats(&[0.0])),
            f64::INFINITY
        );
        let words = |word: &str| Elements::Bytes(vec![word.into()]);
        assert_eq!(difference(&words("a"), &words("a")), 0.0);
        assert_eq!(difference(&words("a"), &words("b")), 1.0);
    }

    #[test]
    fn invented_rows_differ_from_each_other_and_are_the_same_in_every_cut() {
        for datatype in crate::dtype::DataType::ALL {
            let request = Request::new(vec![Some(Tensor::zeros(datatype, vec![1, 5])), None]);
            let part = |from, to| match &rows_of(&request, from, to).inputs[0] {
                Some(tensor) => tensor.clone(),
                None => panic!("the input is there"),
            };
            let whole = part(0, 3);
            assert_eq!(whole.shape, [3, 5]);
            let mut joined = part(0, 1).elements;
            assert_ne!(joined, part(1, 2).elements, "{datatype}");
            joined.extend(part(1, 3).elements.view());
            assert_eq!(joined, whole.elements, "{datatype}");
        }
    }
}
