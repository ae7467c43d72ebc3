//! The elements of one tensor, as JSON and as bytes.
//!
//! What must hold: what was read and is written again is the same; the shape that the nesting shows has as many
//! elements as were read.

use ortolan_server::{
    binary,
    dtype::DataType,
    json::{data, write},
    tensor::{Elements, element_count},
};
use serde_json::value::RawValue;

use crate::world::onnx::DATATYPES;

/// The first byte chooses the datatype, the second JSON or bytes (of so many elements, where it is BYTES).
pub fn any(bytes: &[u8]) -> bool {
    let Some(([datatype, form], rest)) = bytes.split_first_chunk() else {
        return false;
    };
    let (name, _) = DATATYPES[usize::from(*datatype) % DATATYPES.len()];
    let datatype = DataType::from_name(name).expect("a datatype of the protocol");
    match form % 2 {
        0 => json(rest, datatype),
        _ => raw(rest, datatype, usize::from(form / 2)),
    }
}

fn json(bytes: &[u8], datatype: DataType) -> bool {
    // As in a request: what is read has been delimited before.
    let Ok(value) = serde_json::from_slice::<&RawValue>(bytes) else {
        return false;
    };
    let mut first = Elements::with_capacity(datatype, 0);
    let Ok(shape) = data::read(value.get(), datatype, &mut first) else {
        return false;
    };
    assert_eq!(element_count(&shape), Some(first.len()), "{shape:?}");
    let mut out = Vec::new();
    write::elements(&mut out, first.view(), &shape, write::Layout::Flat);
    let text = std::str::from_utf8(&out).expect("JSON is UTF-8");
    serde_json::from_str::<&RawValue>(text).expect("what is written is JSON");
    let mut again = Elements::with_capacity(datatype, 0);
    data::read(text, datatype, &mut again).expect("what was written is read");
    assert_eq!(written(&first), written(&again), "{text}");
    true
}

fn raw(bytes: &[u8], datatype: DataType, strings: usize) -> bool {
    let count = binary::width(datatype).map_or(strings, |width| bytes.len() / width);
    let Ok(elements) = binary::read(bytes, datatype, count) else {
        return false;
    };
    assert_eq!(elements.len(), count);
    assert_eq!(written(&elements), bytes, "{datatype}");
    assert_eq!(binary::size(elements.view()), bytes.len());
    true
}

fn written(elements: &Elements) -> Vec<u8> {
    let mut out = Vec::new();
    binary::write(&mut out, elements.view());
    out
}
