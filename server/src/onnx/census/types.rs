//! Names, element types and shapes of a graph's values.

use std::{
    fmt,
    io::{BufRead, Seek},
};

use prost::Message;
use serde::{Serialize, Serializer};

use super::part;
use crate::onnx::{
    NotOnnx, ValueInfo,
    wire::{Wire, decoded},
};

/// A key with its value, as metadata and external data use them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}

/// One dimension as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always so many.
    Fixed(i64),
    /// Any number, the same wherever the name stands.
    Named(String),
    /// Any number.
    Free,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Named(name) => name.fmt(f),
            Self::Free => f.write_str("?"),
        }
    }
}

/// A number, a name, or null.
impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(size) => serializer.serialize_i64(*size),
            Self::Named(name) => serializer.serialize_str(name),
            Self::Free => serializer.serialize_none(),
        }
    }
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tensor of ONNX's element type of that number; without a shape when the file gives none.
    Tensor {
        /// ONNX's number of the element type.
        element: i32,
        /// `None` when the file leaves even the rank open.
        shape: Option<Vec<Dim>>,
    },
    /// Something else: "a sequence", "a map".
    Odd(&'static str),
    /// The file does not say.
    Unknown,
}

/// An input, an output or a value between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Unique in its graph.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The file brings a value for this input: a request may leave it out.
    pub has_default: bool,
}

impl Value {
    /// How many bytes the value takes with every open dimension 1; `None` when type or rank is unknown.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let Kind::Tensor {
            element,
            shape: Some(shape),
        } = &self.kind
        else {
            return None;
        };
        let bits = element_bits(*element)?;
        let count = shape.iter().try_fold(1_u64, |product, dim| match dim {
            Dim::Fixed(size) => product.checked_mul(u64::try_from(*size).ok()?),
            Dim::Named(_) | Dim::Free => Some(product),
        })?;
        Some(count.checked_mul(bits)?.div_ceil(8))
    }
}

pub(super) fn read<R: BufRead + Seek>(
    wire: &mut Wire<'_, R>,
    n: u64,
    what: &str,
) -> Result<Value, NotOnnx> {
    let info: ValueInfo = part(wire, n, what)?;
    let r#type = info.r#type.unwrap_or_default();
    let kind = match (&r#type.tensor, r#type.odd_kind()) {
        (Some(tensor), _) => {
            let tensor: TensorType = decoded(tensor, what)?;
            let dims = tensor.shape.map(|shape| shape.dims.into_iter());
            Kind::Tensor {
                element: tensor.element,
                shape: dims.map(|dims| dims.map(dim).collect()),
            }
        }
        (None, Some(odd)) => Kind::Odd(odd),
        (None, None) => Kind::Unknown,
    };
    Ok(Value {
        name: info.name,
        kind,
        has_default: false,
    })
}

fn dim(dimension: Dimension) -> Dim {
    match dimension {
        // A negative size is an old exporter's way to leave a dimension open.
        Dimension {
            value: Some(value), ..
        } if value >= 0 => Dim::Fixed(value),
        Dimension {
            name: Some(name), ..
        } if !name.is_empty() => Dim::Named(name),
        _ => Dim::Free,
    }
}

/// ONNX's element types: number, name (the protocol's where it has one), bits. Strings have no size.
const ELEMENTS: [(i32, &str, Option<u64>); 26] = [
    (1, "FP32", Some(32)),
    (2, "UINT8", Some(8)),
    (3, "INT8", Some(8)),
    (4, "UINT16", Some(16)),
    (5, "INT16", Some(16)),
    (6, "INT32", Some(32)),
    (7, "INT64", Some(64)),
    (8, "BYTES", None),
    (9, "BOOL", Some(8)),
    (10, "FP16", Some(16)),
    (11, "FP64", Some(64)),
    (12, "UINT32", Some(32)),
    (13, "UINT64", Some(64)),
    (14, "COMPLEX64", Some(64)),
    (15, "COMPLEX128", Some(128)),
    (16, "BF16", Some(16)),
    (17, "FLOAT8E4M3FN", Some(8)),
    (18, "FLOAT8E4M3FNUZ", Some(8)),
    (19, "FLOAT8E5M2", Some(8)),
    (20, "FLOAT8E5M2FNUZ", Some(8)),
    (21, "UINT4", Some(4)),
    (22, "INT4", Some(4)),
    (23, "FLOAT4E2M1", Some(4)),
    (24, "FLOAT8E8M0", Some(8)),
    (25, "UINT2", Some(2)),
    (26, "INT2", Some(2)),
];

/// How many bits one element takes; `None` for strings and for types that are not known here.
#[must_use]
pub fn element_bits(element: i32) -> Option<u64> {
    ELEMENTS.iter().find(|(number, ..)| *number == element)?.2
}

/// The name of an element type.
#[must_use]
pub fn element_name(element: i32) -> String {
    ELEMENTS
        .iter()
        .find(|(number, ..)| *number == element)
        .map_or_else(
            || format!("type {element}"),
            |(_, name, _)| (*name).to_owned(),
        )
}
