//! From texts to a model's tensors: tokens' numbers, and where the model takes them a mask and types.
//!
//! Inputs: texts, or tokens that a client made itself. Outputs: tensors of shape [texts, tokens], padded to
//! the longest of a run; texts of more than [`TextInput::max_run_tokens`] together are several runs, those of
//! like length together. Invariants: the numbers are those of Hugging Face's `tokenizers`; a run
//! never has more tokens than the bound, padding included, unless one text alone has.

use ortolan_model::{Overflow, TextInput};
use tokenizers::{
    PaddingDirection, PaddingParams, Tokenizer, TruncationDirection, TruncationParams,
};

use super::{Feed, InputError};
use crate::{
    dtype::DataType,
    signature::{Signature, TensorSpec, show_names, show_shape},
    tensor::{Elements, Tensor},
};

/// One text may not be larger: a tokenizer reads it whole before it is cut.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// More texts are several requests.
pub const MAX_TEXTS: usize = 8192;
/// A million: tensors of 24 MB.
pub const MAX_REQUEST_TOKENS: usize = 1 << 20;
/// Where neither `model.yaml` nor the tokenizer's file says.
const DEFAULT_MAX_TOKENS: usize = 512;
/// What tokenizers call padding where their file does not say.
const PADDING_NAMES: [&str; 3] = ["[PAD]", "<pad>", "<|pad|>"];

/// One text's tokens, special ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    types: Vec<u32>,
}

impl Tokens {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// What an input of the model is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ids,
    Mask,
    Types,
}

/// A tokenizer and the model that it feeds.
pub struct Text {
    tokenizer: Tokenizer,
    padding: Padding,
    vocabulary: u32,
    /// The most tokens of one text.
    max_tokens: usize,
    overflow: Overflow,
    max_run_tokens: usize,
    /// For each input that the model requires.
    roles: Vec<(Role, DataType)>,
    /// The model takes exactly so many texts in a run.
    fixed_rows: Option<usize>,
    /// The model takes exactly so many tokens of a text.
    fixed_length: Option<usize>,
}

/// What stands beside a shorter text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Padding {
    id: u32,
    kind: u32,
    left: bool,
}

impl Padding {
    fn of(tokenizer: &Tokenizer) -> Self {
        match tokenizer.get_padding() {
            Some(PaddingParams {
                pad_id,
                pad_type_id,
                direction,
                ..
            }) => Self {
                id: *pad_id,
                kind: *pad_type_id,
                left: matches!(direction, PaddingDirection::Left),
            },
            None => Self {
                id: PADDING_NAMES
                    .iter()
                    .find_map(|name| tokenizer.token_to_id(name))
                    .unwrap_or(0),
                kind: 0,
                left: false,
            },
        }
    }
}

impl Text {
    /// Reads the tokenizer and checks that it can feed the model; else a sentence. Blocking.
    pub fn prepare(input: &TextInput, signature: &Signature) -> Result<Self, String> {
        let roles = roles(input, signature)?;
        let ids = roles.iter().position(|(role, _)| *role == Role::Ids);
        let shape = &signature.inputs[ids.unwrap_or_default()].shape;
        let fixed = |axis: usize| shape.get(axis).and_then(|dim| usize::try_from(*dim).ok());
        let (fixed_rows, fixed_length) = (fixed(0), fixed(1));
        let name = input.tokenizer.file_name().unwrap_or_default();
        let unreadable = |error: &dyn std::fmt::Display| {
            format!(
                "the tokenizer {} cannot be read: {error}; it must be a tokenizer.json of Hugging Face's tokenizers",
                name.display()
            )
        };
        let mut tokenizer =
            Tokenizer::from_file(&input.tokenizer).map_err(|error| unreadable(&error))?;
        let padding = Padding::of(&tokenizer);
        let truncation = tokenizer.get_truncation().cloned();
        let own = truncation.as_ref().map(|params| params.max_length);
        let max_tokens = input.max_tokens.or(own).unwrap_or(DEFAULT_MAX_TOKENS);
        let max_tokens = max_tokens.min(fixed_length.unwrap_or(usize::MAX));
        let cut = (input.overflow == Overflow::Truncate).then(|| TruncationParams {
            max_length: max_tokens,
            stride: 0,
            direction: truncation.map_or(TruncationDirection::Right, |params| params.direction),
            ..TruncationParams::default()
        });
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(cut)
            .map_err(|error| unreadable(&error))?;
        Ok(Self {
            padding,
            vocabulary: u32::try_from(tokenizer.get_vocab_size(true)).unwrap_or(u32::MAX),
            tokenizer,
            max_tokens,
            overflow: input.overflow,
            max_run_tokens: input.max_run_tokens,
            roles,
            fixed_rows,
            fixed_length,
        })
    }

    /// The shape of each input to warm up with: one short text.
    #[must_use]
    pub fn warm_up_shape(&self) -> Vec<i64> {
        let rows = self.fixed_rows.unwrap_or(1);
        let length = self.fixed_length.unwrap_or(self.max_tokens.min(16));
        vec![rows as i64, length as i64]
    }

    /// The tokens of texts. Blocking.
    pub fn encode(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Tokens>, InputError> {
        count(texts.len())?;
        let one = |(number, text): (usize, &_)| {
            let text: &str = AsRef::as_ref(text);
            if text.len() > MAX_TEXT_BYTES {
                return Err(InputError::TooLarge(format!(
                    "text {number} has {} bytes; at most {MAX_TEXT_BYTES} are read of one text",
                    text.len()
                )));
            }
            let encoding = self.tokenizer.encode_fast(text, true).map_err(|error| {
                InputError::Undecodable(format!("text {number} cannot be tokenized: {error}"))
            })?;
            let tokens = Tokens {
                ids: encoding.get_ids().to_vec(),
                types: encoding.get_type_ids().to_vec(),
            };
            self.admit(number, tokens)
        };
        bounded(texts.iter().enumerate().map(one))
    }

    /// Takes tokens as a client made them, special ones included.
    pub fn take(&self, texts: Vec<Vec<u32>>) -> Result<Vec<Tokens>, InputError> {
        count(texts.len())?;
        let one = |(number, mut ids): (usize, Vec<u32>)| {
            if let Some(id) = ids.iter().find(|id| **id >= self.vocabulary) {
                return Err(InputError::Malformed(format!(
                    "text {number} has the token {id}, and the tokenizer knows {} tokens, from 0",
                    self.vocabulary
                )));
            }
            if self.overflow == Overflow::Truncate {
                ids.truncate(self.max_tokens);
            }
            let types = vec![0; ids.len()];
            self.admit(number, Tokens { ids, types })
        };
        bounded(texts.into_iter().enumerate().map(one))
    }

    fn admit(&self, number: usize, tokens: Tokens) -> Result<Tokens, InputError> {
        if tokens.is_empty() {
            return Err(InputError::Malformed(format!(
                "text {number} has no tokens"
            )));
        }
        if tokens.len() > self.max_tokens {
            return Err(InputError::Malformed(format!(
                "text {number} has {} tokens, and the model takes at most {}; send a shorter one",
                tokens.len(),
                self.max_tokens
            )));
        }
        Ok(tokens)
    }

    /// The tensors of as many runs as the texts need.
    #[must_use]
    pub fn feeds(&self, texts: &[Tokens]) -> Vec<Feed> {
        let groups = groups(
            &texts.iter().map(Tokens::len).collect::<Vec<_>>(),
            self.max_run_tokens,
            self.fixed_rows,
            self.fixed_length,
        );
        groups
            .into_iter()
            .map(|items| self.feed(texts, items))
            .collect()
    }

    fn feed(&self, texts: &[Tokens], items: Vec<usize>) -> Feed {
        let longest = items.iter().map(|item| texts[*item].len()).max();
        let length = self.fixed_length.unwrap_or(longest.unwrap_or(0));
        let rows = || items.iter().map(|item| &texts[*item]);
        let inputs = self.roles.iter().map(|(role, datatype)| {
            let mut values = Vec::with_capacity(items.len() * length);
            for tokens in rows() {
                self.row(*role, tokens, length, &mut values);
            }
            let elements = match datatype {
                DataType::Int32 => {
                    Elements::Int32(values.into_iter().map(|value| value as i32).collect())
                }
                _ => Elements::Int64(values),
            };
            Tensor {
                shape: vec![items.len() as i64, length as i64],
                elements,
            }
        });
        let inputs = inputs.collect();
        let spans = rows().map(|tokens| {
            let start = if self.padding.left {
                length - tokens.len()
            } else {
                0
            };
            start..start + tokens.len()
        });
        Feed {
            inputs,
            spans: spans.collect(),
            items,
        }
    }

    /// One text's row of one input.
    fn row(&self, role: Role, tokens: &Tokens, length: usize, into: &mut Vec<i64>) {
        let padding = match role {
            Role::Ids => self.padding.id,
            Role::Mask => 0,
            Role::Types => self.padding.kind,
        };
        let missing = length - tokens.len();
        let pad = |into: &mut Vec<i64>| {
            into.extend(std::iter::repeat_n(i64::from(padding), missing));
        };
        if self.padding.left {
            pad(into);
        }
        match role {
            Role::Ids => into.extend(tokens.ids.iter().map(|id| i64::from(*id))),
            Role::Mask => into.extend(std::iter::repeat_n(1, tokens.len())),
            Role::Types => into.extend(tokens.types.iter().map(|kind| i64::from(*kind))),
        }
        if !self.padding.left {
            pad(into);
        }
    }
}

fn count(texts: usize) -> Result<(), InputError> {
    match texts {
        0 => Err(InputError::Malformed(
            "there are no texts; send one or more".to_owned(),
        )),
        1..=MAX_TEXTS => Ok(()),
        _ => Err(InputError::TooLarge(format!(
            "there are {texts} texts; at most {MAX_TEXTS} are read of one request"
        ))),
    }
}

/// Stops where the texts have more tokens together than one request may have.
fn bounded(
    texts: impl Iterator<Item = Result<Tokens, InputError>>,
) -> Result<Vec<Tokens>, InputError> {
    let mut sum = 0;
    let count = |text: Result<Tokens, InputError>| {
        let text = text?;
        sum += text.len();
        if sum > MAX_REQUEST_TOKENS {
            return Err(InputError::TooLarge(format!(
                "the texts have more than {MAX_REQUEST_TOKENS} tokens together; send fewer in one request"
            )));
        }
        Ok(text)
    };
    texts.map(count).collect()
}

/// What each of the model's inputs is given.
fn roles(input: &TextInput, signature: &Signature) -> Result<Vec<(Role, DataType)>, String> {
    let known = [
        (&input.ids, Role::Ids),
        (&input.mask, Role::Mask),
        (&input.types, Role::Types),
    ];
    let one = |spec: &TensorSpec| {
        let role = known.iter().find(|(name, _)| **name == spec.name);
        let Some((_, role)) = role else {
            return Err(format!(
                "the text pipeline has nothing for the input {:?}; it feeds {}: name the model's inputs \
                 in ids, mask and types",
                spec.name,
                show_names(known.iter().map(|(name, _)| name.as_str())),
            ));
        };
        if !matches!(spec.datatype, DataType::Int64 | DataType::Int32) || spec.shape.len() != 2 {
            return Err(format!(
                "the text pipeline makes INT64 or INT32 of the shape [texts, tokens], and the input {:?} is {} {}",
                spec.name,
                spec.datatype,
                show_shape(&spec.shape)
            ));
        }
        Ok((*role, spec.datatype))
    };
    let roles: Vec<_> = signature.required().map(one).collect::<Result<_, _>>()?;
    if !roles.iter().any(|(role, _)| *role == Role::Ids) {
        return Err(format!(
            "the text pipeline feeds tokens to an input {:?}, and the model has none; name it in ids",
            input.ids
        ));
    }
    Ok(roles)
}

/// Which texts go into one run. All into one, in their order, where they fit; else those of like length
/// together, so that little is padding.
fn groups(
    lengths: &[usize],
    most: usize,
    rows: Option<usize>,
    length: Option<usize>,
) -> Vec<Vec<usize>> {
    let longest = length.or_else(|| lengths.iter().copied().max());
    let whole = longest.unwrap_or(0).saturating_mul(lengths.len()) <= most;
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    if whole && rows.is_none_or(|rows| rows == lengths.len()) {
        return if order.is_empty() {
            vec![]
        } else {
            vec![order]
        };
    }
    order.sort_by_key(|item| lengths[*item]);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for item in order {
        // The texts come shortest first: the last one is the longest of its run.
        let width = length.unwrap_or(lengths[item]);
        let fits = |group: &Vec<usize>| match rows {
            Some(rows) => group.len() < rows,
            None => width.saturating_mul(group.len() + 1) <= most,
        };
        match groups.last_mut() {
            Some(group) if fits(group) => group.push(item),
            _ => groups.push(vec![item]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_that_fit_are_one_run_in_their_order() {
        assert_eq!(groups(&[5, 2, 9], 27, None, None), [[0, 1, 2]]);
        assert_eq!(groups(&[5, 2, 9], 26, None, None), [vec![1, 0], vec![2]]);
        assert_eq!(groups(&[], 26, None, None), Vec::<Vec<usize>>::new());
        assert_eq!(groups(&[900], 26, None, None), [[0]]);
        assert_eq!(groups(&[1, 1], 26, Some(1), None), [[0], [1]]);
        assert_eq!(
            groups(&[1, 1, 1], 20, None, Some(10)),
            [vec![0, 1], vec![2]]
        );
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_run_and_no_run_is_too_large(
            lengths in proptest::collection::vec(1_usize..50, 0..60),
            most in 1_usize..400,
        ) {
            let groups = groups(&lengths, most, None, None);
            let mut seen: Vec<usize> = groups.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for group in &groups {
                let longest = group.iter().map(|item| lengths[*item]).max().unwrap_or(0);
                prop_assert!(group.len() == 1 || group.len() * longest <= most);
            }
        }
    }
}
