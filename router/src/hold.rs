//! The line of those that wait for a pod: first come, first served, bounded by count and by bytes.
//!
//! Synchronous and without a clock: who waits, and what for, is the caller's. Invariants: the line never holds more
//! than its [`Bounds`]; who leaves frees their place at once; nobody is served before one who came earlier and could
//! have been served.

use std::collections::BTreeMap;

/// How many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests.
    pub requests: usize,
    /// Bytes of memory that their bodies may take.
    pub bytes: usize,
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// So many wait already.
    Requests,
    /// What waits takes so much memory already.
    Bytes,
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

/// What becomes of one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has what it waited for, or has gone: it leaves the line.
    Leaves,
    /// Not yet; those behind it may be luckier.
    Waits,
    /// Not yet, and the same goes for all behind it.
    AllWait,
}

/// Those that wait.
#[derive(Debug)]
pub struct Line<T> {
    waiting: BTreeMap<Number, (usize, T)>,
    next: u64,
    bytes: usize,
    bounds: Bounds,
}

impl<T> Line<T> {
    /// Nobody waits.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            bytes: 0,
            bounds,
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The memory that is set aside for those that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// To the end of the line.
    ///
    /// # Errors
    /// When the line is as long as it may be.
    pub fn join(&mut self, bytes: usize, one: T) -> Result<Number, Full> {
        if self.waiting.len() >= self.bounds.requests {
            return Err(Full::Requests);
        }
        if self.bytes.saturating_add(bytes) > self.bounds.bytes {
            return Err(Full::Bytes);
        }
        let number = Number(self.next);
        self.next += 1;
        self.bytes += bytes;
        self.waiting.insert(number, (bytes, one));
        Ok(number)
    }

    /// Out of the line. Who was served has left already.
    pub fn leave(&mut self, number: Number) -> Option<T> {
        let (bytes, one) = self.waiting.remove(&number)?;
        self.bytes -= bytes;
        Some(one)
    }

    /// Goes along the line from its head.
    pub fn serve(&mut self, mut judge: impl FnMut(&mut T) -> Verdict) {
        let mut leaving = Vec::new();
        for (number, (_, one)) in &mut self.waiting {
            match judge(one) {
                Verdict::Leaves => leaving.push(*number),
                Verdict::Waits => {}
                Verdict::AllWait => break,
            }
        }
        for number in leaving {
            self.leave(number);
        }
    }

    /// Everybody leaves.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> Line<u32> {
        Line::new(Bounds {
            requests: 3,
            bytes: 100,
        })
    }

    #[test]
    fn the_line_is_bounded_by_count_and_by_bytes_and_who_leaves_frees_a_place() {
        let mut line = line();
        let first = line.join(60, 1).unwrap();
        assert_eq!(line.join(41, 2), Err(Full::Bytes));
        line.join(40, 2).unwrap();
        line.join(0, 3).unwrap();
        assert_eq!(line.join(0, 4), Err(Full::Requests));
        line.leave(first);
        line.leave(first);
        assert_eq!((line.len(), line.bytes()), (2, 40));
        line.join(60, 5).unwrap();
    }

    #[test]
    fn the_first_to_come_is_the_first_to_be_served() {
        let mut line = line();
        for one in [1, 2, 3] {
            line.join(1, one).unwrap();
        }
        let mut seen = Vec::new();
        line.serve(|one| {
            seen.push(*one);
            if *one == 2 {
                Verdict::Waits
            } else {
                Verdict::Leaves
            }
        });
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!((line.len(), line.bytes()), (1, 1));
        line.join(1, 4).unwrap();
        seen.clear();
        line.serve(|one| {
            seen.push(*one);
            Verdict::AllWait
        });
        assert_eq!(seen, [2], "whoever has to wait for the head is not asked");
        line.clear();
        assert!(line.is_empty() && line.bytes() == 0);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bytes_are_those_of_who_waits(steps in prop::collection::vec((0_u8..3, 0_usize..60), 0..60)) {
            let mut line = line();
            let mut numbers = Vec::new();
            for (step, n) in steps {
                match step {
                    0 => numbers.extend(line.join(n, 0)),
                    1 => if let Some(number) = numbers.get(n) { line.leave(*number); },
                    _ => {
                        let mut left = n % 3;
                        line.serve(|_| {
                            let leaves = left > 0;
                            left = left.saturating_sub(1);
                            if leaves { Verdict::Leaves } else { Verdict::Waits }
                        });
                    }
                }
                prop_assert!(line.len() <= 3 && line.bytes() <= 100);
                let sum: usize = line.waiting.values().map(|(bytes, _)| bytes).sum();
                prop_assert_eq!(sum, line.bytes());
            }
        }
    }
}
