//! Answers kept in memory: the same inputs to the same loaded model need not run twice.
//!
//! Input: a request. Output: its key, and what was kept under it. Invariants: what is kept has at most
//! the bytes that were allowed, keys and bookkeeping counted; an answer is given only for inputs that are the same bit
//! for bit, for the same outputs of the same load of a model: a reload starts anew. Keys are BLAKE3
//! digests, so that nobody can make a request that gets another one's answer.

use std::{
    mem::size_of,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::{OptionsBuilder, Weighter, sync::Cache};

use crate::{
    infer::Request,
    output::{Output, Unreadable},
    tensor::View,
};

/// What an entry takes beside its elements: the key, the map's slot, shapes and counters.
const OVERHEAD: usize = 256;
/// The cache's first guess of an answer's size; it makes room for more entries as they come.
const USUAL_ANSWER: usize = 4096;

/// A load of a model: two loads never have the same, whatever their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load(u64);

impl Load {
    /// The next one.
    #[must_use]
    pub fn new() -> Self {
        static LOADS: AtomicU64 = AtomicU64::new(0);
        Self(LOADS.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

/// What is asked, in 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Of a request to a model. Time: 1 µs, and about 1 ms for each 3 MB of tensors.
    #[must_use]
    pub fn of(load: Load, request: &Request) -> Self {
        let mut hasher = blake3::Hasher::new();
        // Every part says its length first: no two requests are the same bytes.
        let number = |hasher: &mut blake3::Hasher, number: u64| {
            hasher.update(&number.to_le_bytes());
        };
        number(&mut hasher, load.0);
        number(&mut hasher, request.outputs.len() as u64);
        for output in &request.outputs {
            number(&mut hasher, *output as u64);
        }
        for input in &request.inputs {
            let Some(tensor) = input else {
                hasher.update(&[0]);
                continue;
            };
            let elements = tensor.elements.view();
            hasher.update(&[1, elements.datatype() as u8]);
            number(&mut hasher, tensor.shape.len() as u64);
            for dim in &tensor.shape {
                hasher.update(&dim.to_le_bytes());
            }
            match (elements, elements.bytes()) {
                (_, Some(bytes)) => {
                    number(&mut hasher, bytes.len() as u64);
                    hasher.update(bytes);
                }
                (View::Bytes(strings), _) => {
                    for string in strings {
                        number(&mut hasher, string.len() as u64);
                        hasher.update(string.as_bytes());
                    }
                }
                // Only strings have no bytes of their own.
                _ => {}
            }
        }
        Self(*hasher.finalize().as_bytes())
    }
}

#[derive(Clone)]
struct Size;

impl Weighter<Key, Arc<Answer>> for Size {
    fn weight(&self, _key: &Key, answer: &Arc<Answer>) -> u64 {
        answer.bytes
    }
}

struct Answer {
    outputs: Vec<Output>,
    bytes: u64,
}

/// The answers that are kept; which ones leave first, S3-FIFO decides.
pub struct ResponseCache {
    kept: Cache<Key, Arc<Answer>, Size>,
    capacity: u64,
}

impl ResponseCache {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes).unwrap_or(usize::MAX) / USUAL_ANSWER;
        let options = OptionsBuilder::new()
            // One part: an answer may take all of the room, and the bound is exact.
            .shards(1)
            .estimated_items_capacity(entries.clamp(16, 1 << 20))
            .weight_capacity(bytes)
            .build();
        let kept = match options {
            Ok(options) => Cache::with_options(
                options,
                Size,
                quick_cache::DefaultHashBuilder::default(),
                Default::default(),
            ),
            // Both numbers are given; this says the same with the defaults for the rest.
            Err(_) => Cache::with_weighter(16, bytes, Size),
        };
        Self {
            kept,
            capacity: bytes,
        }
    }

    /// The outputs of an equal request.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Vec<Output>> {
        self.kept.get(key).map(|answer| answer.outputs.clone())
    }

    /// Keeps a copy of `outputs`, if there is room for it at all.
    pub fn keep(&self, key: Key, outputs: &[Output]) -> Result<(), Unreadable> {
        let mut bytes = OVERHEAD as u64;
        for output in outputs {
            bytes += size(output)?;
        }
        if bytes > self.capacity {
            return Ok(());
        }
        let outputs: Result<Vec<_>, _> = outputs.iter().map(Output::to_owned).collect();
        let outputs = outputs?;
        self.kept.insert(key, Arc::new(Answer { outputs, bytes }));
        Ok(())
    }

    /// The bytes that are taken now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kept.weight()
    }
}

fn size(output: &Output) -> Result<u64, Unreadable> {
    let elements = output.elements()?;
    let bytes = match (elements, elements.bytes()) {
        (View::Bytes(strings), _) => strings
            .iter()
            .map(|string| string.len() + size_of::<String>())
            .sum(),
        (_, bytes) => bytes.map_or(0, <[u8]>::len),
    };
    Ok((bytes + size_of::<Output>() + size_of_val(output.shape())) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dtype::DataType,
        tensor::{Elements, Tensor},
    };

    fn tensor(shape: &[i64], elements: Elements) -> Option<Tensor> {
        let shape = shape.to_vec();
        Some(Tensor { shape, elements })
    }

    #[test]
    fn whatever_differs_has_another_key() {
        let load = Load::new();
        let ints = |shape: &[i64], values: &[i32]| tensor(shape, Elements::Int32(values.to_vec()));
        let words = |words: &[&str]| {
            let strings = words.iter().map(|word| (*word).to_owned()).collect();
            tensor(&[words.len() as i64], Elements::Bytes(strings))
        };
        let asked = |inputs: Vec<Option<Tensor>>, outputs: &[usize]| Request {
            outputs: outputs.to_vec(),
            ..Request::new(inputs)
        };
        let requests = [
            asked(vec![ints(&[2], &[1, 2])], &[]),
            asked(vec![ints(&[2], &[2, 1])], &[]),
            asked(vec![ints(&[2, 1], &[1, 2])], &[]),
            asked(vec![ints(&[1, 2], &[1, 2])], &[]),
            asked(vec![tensor(&[2], Elements::Uint32(vec![1, 2]))], &[]),
            asked(vec![ints(&[2], &[1, 2])], &[0]),
            asked(vec![ints(&[2], &[1, 2])], &[0, 1]),
            asked(vec![ints(&[2], &[1, 2])], &[1, 0]),
            asked(vec![ints(&[2], &[1, 2]), None], &[]),
            asked(vec![None, ints(&[2], &[1, 2])], &[]),
            asked(vec![ints(&[1], &[1]), ints(&[1], &[2])], &[]),
            asked(vec![words(&["ab", "c"])], &[]),
            asked(vec![words(&["a", "bc"])], &[]),
            asked(vec![tensor(&[1], Elements::Fp32(vec![0.0]))], &[]),
            asked(vec![tensor(&[1], Elements::Fp32(vec![-0.0]))], &[]),
        ];
        for (i, a) in requests.iter().enumerate() {
            for (j, b) in requests.iter().enumerate() {
                let is_same = Key::of(load, a) == Key::of(load, b);
                assert_eq!(is_same, i == j, "{i} {j}");
            }
            assert_ne!(Key::of(load, a), Key::of(Load::new(), a), "a reload");
            let urgent = Request {
                priority: 1,
                ..a.clone()
            };
            assert_eq!(
                Key::of(load, a),
                Key::of(load, &urgent),
                "it changes no answer"
            );
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_never_exceeds_its_bytes() {
        let capacity = 100_000;
        let cache = ResponseCache::new(capacity);
        let load = Load::new();
        let request = |n: i64| Request::new(vec![tensor(&[1], Elements::Int64(vec![n]))]);
        let output = |n: i64, length: usize| {
            let elements = Elements::Int64(vec![n; length]);
            let shape = vec![length as i64];
            Output::from(Tensor { shape, elements })
        };
        for n in 0..2000 {
            let key = Key::of(load, &request(n));
            assert!(cache.find(&key).is_none());
            cache.keep(key, &[output(n, n as usize % 300)]).unwrap();
            assert!(cache.bytes() <= capacity, "{} bytes", cache.bytes());
        }
        assert!(
            cache.bytes() > capacity / 2,
            "it is used: {}",
            cache.bytes()
        );
        let mut hits = 0;
        for n in 0..2000 {
            if let Some(outputs) = cache.find(&Key::of(load, &request(n))) {
                let expected = vec![n; n as usize % 300];
                assert_eq!(outputs[0].elements().unwrap(), View::Int64(&expected));
                hits += 1;
            }
        }
        assert!(hits > 10, "{hits}");
        let key = Key::of(load, &request(-1));
        cache.keep(key, &[output(0, 20_000)]).unwrap();
        assert!(cache.find(&key).is_none(), "larger than all of the room");
        assert!(
            cache.bytes() > capacity / 2,
            "and nothing left for its sake"
        );
    }

    #[test]
    fn an_answer_may_take_nearly_all_of_the_room() {
        let cache = ResponseCache::new(10_000);
        let zeros = Tensor::zeros(DataType::Uint8, vec![9000]);
        let key = Key::of(Load::new(), &Request::default());
        cache.keep(key, &[Output::from(zeros)]).unwrap();
        assert!(cache.find(&key).is_some());
    }
}
