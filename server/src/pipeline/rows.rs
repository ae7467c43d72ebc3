//! From rows of a table to a model's tensors: one column after the other, each value as its datatype reads it.
//!
//! Inputs: JSON (rows as arrays or as objects) or CSV. Outputs: a tensor of shape [rows, columns] for each
//! input of the model. Invariants: every value is read exactly or refused with its row and column; a
//! missing value (null, an empty field, a column that a row lacks) is refused unless `model.yaml` says
//! what the model takes for it.

use std::{borrow::Cow, collections::HashMap};

use ortolan_model::{Missing, RowsInput};
use serde::de::DeserializeSeed as _;
use serde_json::value::RawValue;

use self::row::{Each, Row};
use super::{Feed, InputError};
use crate::{
    dtype::DataType,
    json::data::{self, DataError},
    signature::{Signature, show_names, show_shape},
    tensor::{Elements, Tensor, each_buffer},
};

mod row;

/// One column and where its values go.
struct Column {
    /// Empty where columns have no names.
    name: String,
    missing: Option<Missing>,
    /// The model's input.
    input: usize,
    datatype: DataType,
}

/// The columns of a model.
pub struct Rows {
    columns: Vec<Column>,
    places: HashMap<String, usize>,
    /// The shape of each input for so many rows: whether it has a second axis.
    inputs: Vec<(DataType, usize, bool)>,
    /// The model takes exactly so many rows in a run.
    fixed_rows: Option<usize>,
}

/// A value as it stands in the body.
enum Cell<'a> {
    Json(&'a str),
    Field(&'a str),
}

impl Rows {
    /// Shares the columns out among the model's inputs; else a sentence.
    pub fn prepare(input: &RowsInput, signature: &Signature) -> Result<Self, String> {
        let mut inputs = Vec::new();
        let mut owners = Vec::new();
        for (index, spec) in signature.required().enumerate() {
            let (width, is_flat) = match spec.shape.as_slice() {
                [_] => (1, true),
                [_, width] if *width > 0 => (*width as usize, false),
                // One input of any width takes all columns.
                [_, -1] if signature.required().count() == 1 && !input.columns.is_empty() => {
                    (input.columns.len(), false)
                }
                _ => {
                    return Err(format!(
                        "the rows pipeline feeds inputs of the shape [rows] or [rows, columns], and the input {:?} has {}{}",
                        spec.name,
                        show_shape(&spec.shape),
                        if spec.shape.len() == 2 {
                            "; name the columns"
                        } else {
                            ""
                        }
                    ));
                }
            };
            owners.extend(std::iter::repeat_n((index, spec.datatype), width));
            inputs.push((spec.datatype, width, is_flat));
        }
        let names = names(input, signature, owners.len())?;
        let mut columns = Vec::with_capacity(owners.len());
        for (place, (owner, datatype)) in owners.into_iter().enumerate() {
            let own = input.columns.get(place);
            let given = own.and_then(|column| column.missing.as_ref());
            let given = given.map(|missing| read_as(missing, datatype));
            let missing = given.or_else(|| {
                let general = input.missing.as_ref();
                let general = general.map(|missing| read_as(missing, datatype));
                general.filter(|missing| is_fit(missing, datatype))
            });
            let name = names.get(place).cloned().unwrap_or_default();
            if let Some(missing) = &missing
                && !is_fit(missing, datatype)
            {
                return Err(format!(
                    "the column {name:?} is {datatype}, which cannot hold {missing:?} for a missing value"
                ));
            }
            columns.push(Column {
                name,
                missing,
                input: owner,
                datatype,
            });
        }
        let places = names.into_iter().enumerate().map(|(at, name)| (name, at));
        let first = signature
            .required()
            .next()
            .and_then(|spec| spec.shape.first());
        Ok(Self {
            places: places.collect(),
            columns,
            inputs,
            fixed_rows: first.and_then(|dim| usize::try_from(*dim).ok()),
        })
    }

    /// The shape of each input to warm up with.
    #[must_use]
    pub fn warm_up_shapes(&self) -> Vec<Vec<i64>> {
        let rows = self.fixed_rows.unwrap_or(1);
        let shapes = self.inputs.iter();
        shapes
            .map(|(_, width, is_flat)| shape(rows, *width, *is_flat))
            .collect()
    }

    /// A row of JSON, of zeros and empty strings.
    #[must_use]
    pub fn example(&self) -> String {
        let value = |column: &Column| {
            let value = match column.datatype {
                DataType::Bytes => "\"\"",
                DataType::Bool => "false",
                _ => "0",
            };
            if column.name.is_empty() {
                return value.to_owned();
            }
            format!("{}: {value}", serde_json::Value::from(column.name.as_str()))
        };
        let values: Vec<String> = self.columns.iter().map(value).collect();
        if self.places.is_empty() {
            format!("[{}]", values.join(", "))
        } else {
            format!("{{{}}}", values.join(", "))
        }
    }

    /// Reads the value of `inputs` in a JSON body: rows, or one row. Gives the tensors and whether it was a list.
    pub fn json(&self, raw: &RawValue) -> Result<(Vec<Feed>, bool), InputError> {
        let mut table = self.table();
        let text = raw.get();
        let inner = text.strip_prefix('[').unwrap_or_default().trim_start();
        if !inner.starts_with(['[', '{']) {
            let row = serde_json::from_str(text).map_err(|error| no_rows(&error))?;
            table.push_row(&row)?;
            return Ok((table.feeds(), false));
        }
        // Row by row: all of them as they stand in the body would take many times its size.
        let mut refused = None;
        let rows = Each(|row: Row<'_>| {
            table.push_row(&row).map_err(|error| {
                refused = Some(error);
            })
        });
        let read = rows.deserialize(&mut serde_json::Deserializer::from_str(text));
        match (refused, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(no_rows(&error)),
            (None, Ok(())) => Ok((table.feeds(), true)),
        }
    }

    /// The cells of one row in the order of the columns.
    fn arrange<'a>(
        &self,
        number: usize,
        row: &Row<'a>,
        cells: &mut Vec<Option<Cell<'a>>>,
    ) -> Result<(), InputError> {
        match row {
            Row::Array(values) => {
                self.count(number, values.len())?;
                cells.extend(values.iter().map(|value| Some(Cell::Json(value.get()))));
            }
            Row::Object(values) => {
                cells.resize_with(self.columns.len(), || None);
                for (name, value) in values {
                    let Some(place) = self.places.get(name.as_ref()) else {
                        return Err(self.unknown(&format!("row {number}"), name));
                    };
                    if cells[*place].is_some() {
                        return Err(InputError::Malformed(format!(
                            "row {number} has the column {name:?} twice"
                        )));
                    }
                    cells[*place] = Some(Cell::Json(value.get()));
                }
            }
        }
        Ok(())
    }

    /// Reads CSV; the first line names the columns unless `header` is false.
    pub fn csv(&self, body: &[u8], header: bool) -> Result<Vec<Feed>, InputError> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(body);
        let mut record = csv::StringRecord::new();
        let mut next = |record: &mut csv::StringRecord| {
            reader
                .read_record(record)
                .map_err(|error| InputError::Undecodable(format!("the body is not CSV: {error}")))
        };
        let mut order = None;
        if header {
            if !next(&mut record)? {
                return Err(InputError::Malformed(
                    "the body is empty; the first line of CSV names the columns".to_owned(),
                ));
            }
            order = Some(self.header(&record)?);
        }
        let mut table = self.table();
        while next(&mut record)? {
            let number = table.count;
            let mut cells: Vec<Option<Cell<'_>>> = Vec::with_capacity(self.columns.len());
            match &order {
                None => {
                    self.count(number, record.len())?;
                    cells.extend(record.iter().map(|field| Some(Cell::Field(field))));
                }
                Some(order) => {
                    if record.len() != order.len() {
                        return Err(InputError::Malformed(format!(
                            "row {number} has {} values, and the first line names {} columns",
                            record.len(),
                            order.len()
                        )));
                    }
                    cells.resize_with(self.columns.len(), || None);
                    for (place, field) in order.iter().zip(&record) {
                        cells[*place] = Some(Cell::Field(field));
                    }
                }
            }
            table.push(&cells)?;
        }
        if table.count == 0 {
            return Err(InputError::Malformed(
                "the body has no rows; expected one line for each".to_owned(),
            ));
        }
        Ok(table.feeds())
    }

    /// For each field of the first line its column.
    fn header(&self, record: &csv::StringRecord) -> Result<Vec<usize>, InputError> {
        let mut order = Vec::with_capacity(record.len());
        for name in record {
            let name = name.strip_prefix('\u{feff}').unwrap_or(name);
            let Some(place) = self.places.get(name) else {
                return Err(self.unknown("the first line", name));
            };
            if order.contains(place) {
                return Err(InputError::Malformed(format!(
                    "the first line names the column {name:?} twice"
                )));
            }
            order.push(*place);
        }
        Ok(order)
    }

    fn unknown(&self, what: &str, name: &str) -> InputError {
        let known = if self.places.is_empty() {
            "the columns have no names; send their values in the model's order".to_owned()
        } else {
            let names = self.columns.iter().map(|column| column.name.as_str());
            format!("the columns are {}", show_names(names))
        };
        InputError::Malformed(format!("{what} has the column {name:?}; {known}"))
    }

    fn count(&self, number: usize, values: usize) -> Result<(), InputError> {
        if values == self.columns.len() {
            return Ok(());
        }
        let names = self.columns.iter().map(|column| column.name.as_str());
        let named = if self.places.is_empty() {
            String::new()
        } else {
            format!(": {}", show_names(names))
        };
        Err(InputError::Malformed(format!(
            "row {number} has {values} values, and the model takes {}{named}",
            self.columns.len(),
        )))
    }

    fn table(&self) -> Table<'_> {
        let buffer =
            |(datatype, ..): &(DataType, usize, bool)| Elements::with_capacity(*datatype, 0);
        Table {
            rows: self,
            buffers: self.inputs.iter().map(buffer).collect(),
            count: 0,
        }
    }
}

/// The tensors as they grow.
struct Table<'a> {
    rows: &'a Rows,
    buffers: Vec<Elements>,
    count: usize,
}

impl Table<'_> {
    fn push_row(&mut self, row: &Row<'_>) -> Result<(), InputError> {
        let mut cells = Vec::with_capacity(self.rows.columns.len());
        self.rows.arrange(self.count, row, &mut cells)?;
        self.push(&cells)
    }

    fn push(&mut self, cells: &[Option<Cell<'_>>]) -> Result<(), InputError> {
        let number = self.count;
        for (column, cell) in self.rows.columns.iter().zip(cells) {
            let into = &mut self.buffers[column.input];
            read(column, cell.as_ref(), into).map_err(|wrong| {
                let place = if column.name.is_empty() {
                    format!("row {number}")
                } else {
                    format!("row {number}, column {:?}", column.name)
                };
                InputError::Malformed(format!("{place}: {wrong}"))
            })?;
        }
        self.count += 1;
        Ok(())
    }

    /// All rows in one run, or as many as the model takes at once.
    fn feeds(mut self) -> Vec<Feed> {
        let per_run = self.rows.fixed_rows.unwrap_or(self.count).max(1);
        let mut feeds = Vec::new();
        let mut end = self.count;
        // From the back, so that what is left need not move.
        while end > 0 {
            let first = (end - 1) / per_run * per_run;
            let tensors = self.buffers.iter_mut().zip(&self.rows.inputs);
            let inputs = tensors.map(|(buffer, (_, width, is_flat))| Tensor {
                shape: shape(end - first, *width, *is_flat),
                elements: split_off(buffer, first * width),
            });
            feeds.push(Feed {
                inputs: inputs.collect(),
                items: (first..end).collect(),
                spans: Vec::new(),
            });
            end = first;
        }
        feeds.reverse();
        feeds
    }
}

/// The elements from `at` on, which `from` loses.
fn split_off(from: &mut Elements, at: usize) -> Elements {
    macro_rules! same {
        ($($kind:ident),+) => {
            match from {
                $(Elements::$kind(buffer) if at == 0 => Elements::$kind(std::mem::take(buffer)),)+
                $(Elements::$kind(buffer) => Elements::$kind(buffer.split_off(at)),)+
            }
        };
    }
    same!(
        Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64,
        Bytes
    )
}

fn shape(rows: usize, width: usize, is_flat: bool) -> Vec<i64> {
    if is_flat {
        vec![rows as i64]
    } else {
        vec![rows as i64, width as i64]
    }
}

/// As `model.yaml` names the columns, else as the model names its inputs where each is one column.
fn names(input: &RowsInput, signature: &Signature, width: usize) -> Result<Vec<String>, String> {
    if !input.columns.is_empty() {
        if input.columns.len() != width {
            return Err(format!(
                "model.yaml names {} columns, and the model takes {width}",
                input.columns.len()
            ));
        }
        return Ok(input.columns.iter().map(|c| c.name.clone()).collect());
    }
    if width == signature.required().count() {
        return Ok(signature.required().map(|i| i.name.clone()).collect());
    }
    Ok(Vec::new())
}

/// Whether a column of this datatype can hold the value.
/// A string that is a number stands for it in a column of numbers: JSON, where a configuration may come from, has no
/// other way to write NaN.
fn read_as(missing: &Missing, datatype: DataType) -> Missing {
    match missing {
        Missing::Text(text) if datatype != DataType::Bytes => text
            .parse()
            .map_or_else(|_| missing.clone(), Missing::Number),
        _ => missing.clone(),
    }
}

fn is_fit(missing: &Missing, datatype: DataType) -> bool {
    fill(missing, &mut Elements::with_capacity(datatype, 1))
}

/// Appends what stands for a missing value, if the datatype can hold it.
fn fill(missing: &Missing, into: &mut Elements) -> bool {
    match (missing, into) {
        (Missing::Text(text), Elements::Bytes(buffer)) => buffer.push(text.clone()),
        (Missing::Number(number), Elements::Fp32(buffer)) => buffer.push(*number as f32),
        (Missing::Number(number), Elements::Fp64(buffer)) => buffer.push(*number),
        (Missing::Number(number), Elements::Fp16(buffer)) => {
            buffer.push(half::f16::from_f64(*number));
        }
        (Missing::Number(number), Elements::Bf16(buffer)) => {
            buffer.push(half::bf16::from_f64(*number));
        }
        (Missing::Number(number), Elements::Int64(buffer)) if is_whole(*number) => {
            buffer.push(*number as i64);
        }
        (Missing::Number(number), Elements::Int32(buffer))
            if is_whole(*number) && i32::try_from(*number as i64).is_ok() =>
        {
            buffer.push(*number as i32);
        }
        _ => return false,
    }
    true
}

/// Up to 2⁵³ a float holds every whole number.
fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0
}

/// Appends one value, or says what was wrong with it.
fn read(column: &Column, cell: Option<&Cell<'_>>, into: &mut Elements) -> Result<(), String> {
    let datatype = column.datatype;
    let text = match cell {
        None | Some(Cell::Json("null") | Cell::Field("")) => {
            return match &column.missing {
                Some(missing) if fill(missing, into) => Ok(()),
                _ => Err(format!(
                    "the value is missing, and the model takes a {datatype}; where it takes something for a missing value, \
                     model.yaml says so (missing)"
                )),
            };
        }
        Some(Cell::Json(text)) => Cow::Borrowed(*text),
        Some(Cell::Field(field)) => match into {
            Elements::Bytes(buffer) => {
                buffer.push((*field).to_owned());
                return Ok(());
            }
            // As tables are written: True, NaN, inf.
            Elements::Bool(_) => Cow::Owned(field.to_ascii_lowercase()),
            _ => special(field),
        },
    };
    let before = into.len();
    let nested = match data::read(&text, datatype, into) {
        Ok(shape) => !shape.is_empty() || into.len() != before + 1,
        Err(DataError::Element {
            found, expected, ..
        }) => return Err(format!("the value is {found}, expected {expected}")),
        Err(DataError::Ragged { .. } | DataError::TooDeep) => true,
    };
    if nested {
        each_buffer!(into, buffer => buffer.truncate(before));
        return Err(format!("the value is {text}, expected one {datatype}"));
    }
    Ok(())
}

/// What JSON writes as a string.
fn special(field: &str) -> Cow<'_, str> {
    match field.to_ascii_lowercase().as_str() {
        "nan" => Cow::Borrowed("\"NaN\""),
        "inf" | "infinity" => Cow::Borrowed("\"Infinity\""),
        "-inf" | "-infinity" => Cow::Borrowed("\"-Infinity\""),
        _ => Cow::Borrowed(field),
    }
}

fn no_rows(error: &serde_json::Error) -> InputError {
    InputError::Malformed(format!(
        "\"inputs\" holds no rows: {error}; expected [[1, 2], …], or [{{\"column\": 1, …}}, …]"
    ))
}

#[cfg(test)]
mod tests;
