//! How much an archive may unpack to. Counted on the bytes that come out, never on what headers
//! promise.
//!
//! Three bounds: all bytes together (`--max-model-bytes`), the ratio to the archive's own size,
//! and what may be read between two files, where nothing but small headers lies (a tar may hold a
//! "long name" of gigabytes, which would be read into memory).

use std::{
    cell::{Cell, RefCell},
    io::{self, Read},
    rc::Rc,
};

use crate::{
    disk::size,
    failure::{Failure, Reason},
    limit::Limit,
    task::Pulse,
};

/// Deflate cannot do better than 1032:1 and weights hardly compress at all; models of mostly zeros
/// measured below 100:1 in practice.
const MAX_RATIO: u64 = 200;
/// Below this the ratio does not matter: no harm, and small files of zeros are legitimate.
const RATIO_FROM: u64 = 64 * 1024 * 1024;
/// Padding and headers between two files of a tar.
const HEADER_BYTES: u64 = 1024 * 1024;

/// The bounds of one archive and what has come out of it so far.
pub(crate) struct Meter<'a> {
    unpacked: Cell<u64>,
    headers_left: Cell<Option<u64>>,
    refusal: RefCell<Option<Failure>>,
    /// The archive, as it begins a sentence.
    subject: String,
    packed: u64,
    limit: Limit,
    pulse: &'a Pulse,
}

impl<'a> Meter<'a> {
    /// `name`: the archive in sentences; `packed`: its size; `limit`: for all that it unpacks to.
    pub(crate) fn new(name: &str, packed: u64, limit: impl Into<Limit>, pulse: &'a Pulse) -> Self {
        Self {
            unpacked: Cell::new(0),
            headers_left: Cell::new(None),
            refusal: RefCell::new(None),
            subject: format!("the archive {name}"),
            packed,
            limit: limit.into(),
            pulse,
        }
    }

    /// From here on only headers are expected.
    pub(crate) fn expect_headers(&self) {
        self.headers_left.set(Some(HEADER_BYTES));
    }

    /// From here on a file's content is expected.
    pub(crate) fn expect_content(&self) {
        self.headers_left.set(None);
    }

    /// Counts bytes that came out; an error ends the reading and is kept for [`Meter::refusal`].
    pub(crate) fn count(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        self.pulse.advance(bytes)?;
        let total = self.unpacked.get().saturating_add(bytes);
        self.unpacked.set(total);
        if let Err(failure) = self.limit.check(&self.subject, "unpacks to", total) {
            return Err(self.keep(failure));
        }
        if total > RATIO_FROM && total / MAX_RATIO > self.packed {
            return Err(self.refuse(Reason::ArchiveRefused, format!(
                "unpacks to more than {MAX_RATIO} times its size ({} so far): a bomb, not a model",
                size(total)
            )));
        }
        if let Some(left) = self.headers_left.get() {
            match left.checked_sub(bytes) {
                Some(left) => self.headers_left.set(Some(left)),
                None => {
                    return Err(self.refuse(
                        Reason::ArchiveRefused,
                        format!("holds a header of more than {}", size(HEADER_BYTES)),
                    ));
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, reason: Reason, sentence: String) -> io::Error {
        self.keep(Failure::new(reason, format!("{} {sentence}", self.subject)))
    }

    fn keep(&self, failure: Failure) -> io::Error {
        let error = io::Error::other(failure.message.clone());
        self.refusal.replace(Some(failure));
        error
    }

    /// Why the meter ended the reading, if it did.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        self.refusal.take()
    }
}

/// A reader whose bytes are counted.
pub(crate) struct Metered<'a, R> {
    inner: R,
    meter: Rc<Meter<'a>>,
}

impl<'a, R> Metered<'a, R> {
    pub(crate) fn new(inner: R, meter: Rc<Meter<'a>>) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.meter.count(n)?;
        Ok(n)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_bound_has_its_sentence_and_the_bound_itself_still_passes() {
        let pulse = Pulse::default();
        let meter = Meter::new("m.tar", 10, 100, &pulse);
        assert!(meter.count(100).is_ok());
        assert!(meter.count(1).is_err());
        assert!(
            meter
                .refusal()
                .unwrap()
                .message
                .contains("--max-model-bytes")
        );

        let meter = Meter::new("m.tar", RATIO_FROM / MAX_RATIO, u64::MAX, &pulse);
        assert!(meter.count(RATIO_FROM as usize).is_ok());
        assert!(meter.count(MAX_RATIO as usize).is_err());
        assert!(meter.refusal().unwrap().message.contains("a bomb"));

        let meter = Meter::new("m.tar", u64::MAX, u64::MAX, &pulse);
        meter.expect_headers();
        assert!(meter.count(HEADER_BYTES as usize).is_ok());
        assert!(meter.count(1).is_err());
        assert!(meter.refusal().unwrap().message.contains("header"));
        meter.expect_content();
        assert!(meter.count(1).is_ok());
    }
}
