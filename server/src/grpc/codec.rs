//! Messages to bytes and back, as prost does it. A message that is none is the client's fault, and so
//! INVALID_ARGUMENT.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The codec of every call; `T` is written, `U` is read.
#[derive(Debug)]
pub struct Proto<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Proto<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Writes `T`.
#[derive(Debug)]
pub struct Writer<T>(PhantomData<T>);

/// Reads `U`.
#[derive(Debug)]
pub struct Reader<U>(PhantomData<U>);

impl<T, U> Codec for Proto<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Writer<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(PhantomData)
    }
}

impl<T: Message> Encoder for Writer<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // All at once: the buffer would grow, and copy what is written, step by step.
        into.reserve(message.encoded_len());
        message
            .encode(into)
            .map_err(|error| Status::internal(format!("cannot write the answer: {error}")))
    }
}

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(from).map(Some).map_err(|error| {
            Status::invalid_argument(format!("the message is not what this call takes: {error}"))
        })
    }
}
