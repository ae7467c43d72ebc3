//! Protobuf's wire format over a file, field by field: what is not asked for is skipped, never held.

use std::io::{self, BufRead, Read, Seek};

use prost::Message;

use super::NotOnnx;

/// A file that is no model, in words.
pub(super) fn malformed(what: &str) -> NotOnnx {
    NotOnnx::Malformed(what.to_owned())
}

/// Bytes as a message; `what` names it in the error.
pub(super) fn decoded<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M, NotOnnx> {
    M::decode(bytes)
        .map_err(|error| NotOnnx::Malformed(format!("{what} does not decode ({error})")))
}

/// What follows a field's key.
pub(super) enum Payload {
    Varint(u64),
    Fixed,
    Bytes(u64),
}

/// Protobuf's wire format over a file: lengths are checked against what is there before any read.
pub(super) struct Wire<'r, R> {
    reader: &'r mut R,
    /// How many bytes were read so far.
    pub(super) at: u64,
    length: u64,
}

impl<'r, R: BufRead + Seek> Wire<'r, R> {
    /// At the start of a file of `length` bytes.
    pub(super) fn new(reader: &'r mut R, length: u64) -> Self {
        Self {
            reader,
            at: 0,
            length,
        }
    }

    /// The next field's number and what follows. A part of bytes must end before `end`.
    pub(super) fn field(&mut self, end: u64) -> Result<(u64, Payload), NotOnnx> {
        let key = self.varint()?;
        let payload = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => self.fixed(8)?,
            5 => self.fixed(4)?,
            2 => {
                let need = self.varint()?;
                let has = self.length.saturating_sub(self.at);
                if need > has {
                    return Err(NotOnnx::Truncated {
                        at: self.at,
                        need,
                        has,
                    });
                }
                if need > end - self.at.min(end) {
                    return Err(malformed("a part is longer than what holds it"));
                }
                Payload::Bytes(need)
            }
            other => {
                return Err(NotOnnx::Malformed(format!(
                    "protobuf knows no wire type {other}"
                )));
            }
        };
        Ok((key >> 3, payload))
    }

    fn fixed(&mut self, n: u64) -> Result<Payload, NotOnnx> {
        self.skip(n)?;
        Ok(Payload::Fixed)
    }

    pub(super) fn varint(&mut self) -> Result<u64, NotOnnx> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let mut byte = [0];
            if let Err(error) = self.reader.read_exact(&mut byte) {
                return Err(self.ended(error, 1));
            }
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a number has more than ten bytes"))
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: u64) -> Result<Vec<u8>, NotOnnx> {
        // `field` has checked that the file holds n bytes.
        let mut bytes = Vec::new();
        self.reader.by_ref().take(n).read_to_end(&mut bytes)?;
        self.at += n;
        Ok(bytes)
    }

    /// The next `n` bytes as a message; `what` names it in the error.
    pub(super) fn message<M: Message + Default>(
        &mut self,
        n: u64,
        what: &str,
    ) -> Result<M, NotOnnx> {
        decoded(&self.take(n)?, what)
    }

    /// Leaves `n` bytes out.
    pub(super) fn skip(&mut self, n: u64) -> Result<(), NotOnnx> {
        if n > self.length.saturating_sub(self.at) {
            return Err(self.ended(io::ErrorKind::UnexpectedEof.into(), n));
        }
        // Small parts stay inside the buffer; a seek would throw it away.
        self.reader
            .seek_relative(i64::try_from(n).unwrap_or(i64::MAX))?;
        self.at += n;
        Ok(())
    }

    fn ended(&self, error: io::Error, need: u64) -> NotOnnx {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let has = self.length.saturating_sub(self.at);
            return NotOnnx::Truncated {
                at: self.at,
                need,
                has,
            };
        }
        NotOnnx::Io(error)
    }
}
