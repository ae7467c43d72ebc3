//! Tensors in the file: how many elements and bytes, and in which file they lie. Their content is skipped.

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead, Seek},
};

use super::{
    part, text,
    types::{Entry, element_bits, element_name},
};
use crate::onnx::{
    NotOnnx,
    wire::{Payload, Wire, malformed},
};

/// The weights of a graph: initializers, and the tensors in attributes.
#[derive(Debug, Default)]
pub struct Parameters {
    /// How many tensors.
    pub tensors: u64,
    /// How many elements in all of them.
    pub count: u64,
    /// What they take in memory.
    pub bytes: u64,
    /// The bytes by element type.
    pub by_type: BTreeMap<String, u64>,
    /// Files beside the model that hold some of them: location → extent.
    pub external: BTreeMap<String, External>,
    pub(super) names: HashSet<String>,
}

/// What the model keeps in another file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// How many tensors lie there.
    pub tensors: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The file must have at least so many bytes.
    pub end: u64,
}

/// One tensor without its content.
#[derive(Debug, Default)]
pub(super) struct Tensor {
    name: String,
    dims: Vec<i64>,
    element: i32,
    /// Bytes of strings, which have no size of their own.
    text_bytes: u64,
    external: BTreeMap<String, String>,
    is_external: bool,
}

impl Tensor {
    fn count(&self) -> Option<u64> {
        self.dims.iter().try_fold(1_u64, |product, dim| {
            product.checked_mul(u64::try_from(*dim).ok()?)
        })
    }
}

impl Parameters {
    pub(super) fn add(&mut self, tensor: Tensor) {
        let count = tensor.count().unwrap_or(0);
        let bytes = match element_bits(tensor.element) {
            Some(bits) => count.saturating_mul(bits).div_ceil(8),
            None => tensor.text_bytes,
        };
        self.tensors += 1;
        self.count = self.count.saturating_add(count);
        self.bytes = self.bytes.saturating_add(bytes);
        let of_type = self
            .by_type
            .entry(element_name(tensor.element))
            .or_default();
        *of_type = of_type.saturating_add(bytes);
        if tensor.is_external {
            let number = |key: &str| -> Option<u64> { tensor.external.get(key)?.parse().ok() };
            let location = tensor.external.get("location").cloned();
            let length = number("length").unwrap_or(bytes);
            let file = self
                .external
                .entry(location.unwrap_or_default())
                .or_default();
            file.tensors += 1;
            file.bytes = file.bytes.saturating_add(length);
            let end = number("offset").unwrap_or(0).saturating_add(length);
            file.end = file.end.max(end);
        }
        if !tensor.name.is_empty() {
            self.names.insert(tensor.name);
        }
    }
}

/// Where the tensor's elements lie in another file than the model's.
const EXTERNAL: u64 = 1;

pub(super) fn read<R: BufRead + Seek>(wire: &mut Wire<'_, R>, end: u64) -> Result<Tensor, NotOnnx> {
    let mut tensor = Tensor::default();
    while wire.at < end {
        match wire.field(end)? {
            (1, Payload::Varint(dim)) => tensor.dims.push(dim as i64),
            (1, Payload::Bytes(n)) => {
                let end = wire.at + n;
                while wire.at < end {
                    tensor.dims.push(wire.varint()? as i64);
                }
                if tensor.dims.len() > 1024 {
                    return Err(malformed("a tensor has more than 1024 dimensions"));
                }
            }
            (2, Payload::Varint(element)) => {
                tensor.element = i32::try_from(element).unwrap_or_default();
            }
            (6, Payload::Bytes(n)) => {
                tensor.text_bytes = tensor.text_bytes.saturating_add(n);
                wire.skip(n)?;
            }
            (8, Payload::Bytes(n)) => tensor.name = text(wire, n)?,
            (13, Payload::Bytes(n)) => {
                let entry: Entry = part(wire, n, "a tensor's place in another file")?;
                tensor.external.insert(entry.key, entry.value);
            }
            (14, Payload::Varint(place)) => tensor.is_external = place == EXTERNAL,
            (0, _) => return Err(malformed("a field of a tensor has the number 0")),
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    Ok(tensor)
}

/// A sparse tensor: its values and their places are tensors, of which the first carries the name.
pub(super) fn read_sparse<R: BufRead + Seek>(
    wire: &mut Wire<'_, R>,
    end: u64,
    parameters: &mut Parameters,
) -> Result<(), NotOnnx> {
    while wire.at < end {
        match wire.field(end)? {
            (1 | 2, Payload::Bytes(n)) => {
                let tensor = read(wire, wire.at + n)?;
                parameters.add(tensor);
            }
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    Ok(())
}
