//! Makes other bytes from good ones: a generator that needs nothing but a seed.
//!
//! Input: seeds and a number. Output: bytes, the same for the same number on every machine.

use fastrand::Rng;

/// Longer inputs find nothing new and take time.
pub const LONGEST: usize = 16 << 10;

/// Where readers of numbers, of JSON, of protobuf and of text formats go wrong.
const TOKENS: [&[u8]; 46] = [
    b"-1",
    b"0",
    b"1e999",
    b"-0",
    b"1.0",
    b"18446744073709551616",
    b"9223372036854775807",
    b"-9223372036854775809",
    b"4294967296",
    b"0.1e-400",
    b"null",
    b"true",
    b"false",
    b"\"\"",
    b"\"NaN\"",
    b"NaN",
    b"Infinity",
    b"[]",
    b"{}",
    b"[[",
    b"]]",
    b"[",
    b"{",
    b"}",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"\xed\xa0\x80",
    b"\xff",
    b"\0",
    b"\xc0\x80",
    b"\"shape\":[1,0]",
    b"\"shape\":[-1]",
    b"\"parameters\":{\"binary_data_size\":8}",
    b"\"classification\":3",
    b"../",
    b"/",
    b"%00",
    b"%ff",
    b"\r\n",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x10",
    b"\xef\xbb\xbf",
    b"\"parameters\":{\"timeout\":1}",
    b"1099511627776,0",
];

/// The `number`th input that is made of `seeds`, which are not empty.
#[must_use]
pub fn input(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(number);
    let mut bytes = seeds[rng.usize(..seeds.len())].clone();
    // One change tests a check, many the whole reader.
    for _ in 0..1 << rng.u32(0..5) {
        change(&mut bytes, seeds, &mut rng);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    match rng.u32(0..12) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.u32(0..8),
        2 if at < bytes.len() => bytes[at] = rng.u8(..),
        3 => bytes.insert(at, rng.u8(..)),
        4 => drop(bytes.drain(piece(bytes.len(), rng))),
        5 => {
            let copy = bytes[piece(bytes.len(), rng)].to_vec();
            bytes.splice(at..at, copy);
        }
        6 | 7 => {
            let token = TOKENS[rng.usize(..TOKENS.len())];
            bytes.splice(at..at, token.iter().copied());
        }
        8 => number(bytes, rng),
        9 => {
            let other = &seeds[rng.usize(..seeds.len())];
            let copy = other[piece(other.len(), rng)].to_vec();
            bytes.splice(at..at, copy);
        }
        10 => bytes.truncate(at),
        _ => {
            let again = bytes.get(at).copied().unwrap_or(b'[');
            let times = 1 << rng.u32(0..12);
            bytes.splice(at..at, std::iter::repeat_n(again, times));
        }
    }
}

/// A part of something of this length, mostly a short one.
fn piece(length: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let from = rng.usize(..=length);
    let most = if rng.bool() { 8 } else { length };
    from..(from + rng.usize(..=most)).min(length)
}

/// Puts another number in the place of one that stands there in digits.
fn number(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let digits: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at].is_ascii_digit())
        .collect();
    let Some(from) = rng.choice(digits) else {
        return;
    };
    let length = bytes[from..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let token = TOKENS[rng.usize(..10)];
    bytes.splice(from..from + length, token.iter().copied());
}
