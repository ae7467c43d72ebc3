//! Content codings: unpacks a request's body within a bound, and packs an answer where that pays.
//!
//! Inputs: `Content-Encoding` and `Accept-Encoding`, bytes. Outputs: bytes, or why not. Invariant: no
//! more than the limit is ever held of what a body unpacks to.

use std::io::Read;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use flate2::{
    Compression,
    read::{DeflateDecoder, GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder},
};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::task::spawn_blocking;

use super::error::ApiError;

/// Below this an answer goes as it is, whatever the client would take: packing costs the server a
/// millisecond for each 100 KiB of numbers, more than they take on the way.
pub const WORTH_PACKING: usize = 64 << 10;
/// RFC 9659 lets a `zstd` body ask for no more than 8 MiB of memory.
const ZSTD_WINDOW: u32 = 23;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950; without its head (RFC 1951), as some clients send it, it is read as well.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// In the order in which they are chosen when the client takes several alike.
    const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Deflate];

    /// As headers write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let name = if name == "x-gzip" { "gzip" } else { &name };
        Self::ALL.into_iter().find(|coding| coding.as_str() == name)
    }

    /// How a request's body is packed; `None` when it is not.
    pub fn of_request(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut found = None;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            for name in value.to_str().unwrap_or("?").split(',') {
                if name.trim().is_empty() || name.trim().eq_ignore_ascii_case("identity") {
                    continue;
                }
                match (Self::named(name), found) {
                    (Some(coding), None) => found = Some(coding),
                    _ => return Err(unread(headers)),
                }
            }
        }
        Ok(found)
    }

    /// How the client wants the answer packed, if at all.
    #[must_use]
    pub fn of_answer(headers: &HeaderMap) -> Option<Self> {
        let mut weights: [Option<f32>; 3] = [None; 3];
        let mut any = None;
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            for item in value.to_str().unwrap_or_default().split(',') {
                let (name, weight) = weighted(item);
                if name == "*" {
                    any = Some(weight);
                } else if let Some(coding) = Self::named(name)
                    && let Some(place) = Self::ALL.iter().position(|one| *one == coding)
                {
                    weights[place] = Some(weight);
                }
            }
        }
        let mut best: Option<(Self, f32)> = None;
        for (coding, weight) in Self::ALL.into_iter().zip(weights) {
            let weight = weight.or(any).unwrap_or(0.0);
            if weight > best.map_or(0.0, |(_, weight)| weight) {
                best = Some((coding, weight));
            }
        }
        best.map(|(coding, _)| coding)
    }

    /// Unpacks a body to `limit` bytes at most. Takes CPU: not for the threads that move bytes.
    pub fn unpack(self, packed: &[u8], limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut whole = Vec::with_capacity(limit.min(packed.len().saturating_mul(4)));
        // One byte more shows that there is more.
        let bound = limit as u64 + 1;
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(packed)
                .take(bound)
                .read_to_end(&mut whole),
            Self::Deflate if has_zlib_head(packed) => {
                ZlibDecoder::new(packed).take(bound).read_to_end(&mut whole)
            }
            Self::Deflate => DeflateDecoder::new(packed)
                .take(bound)
                .read_to_end(&mut whole),
            Self::Zstd => {
                zstd(packed).and_then(|decoder| decoder.take(bound).read_to_end(&mut whole))
            }
        };
        read.map_err(|error| {
            ApiError::bad(format!(
                "the body is no {} as its Content-Encoding says: {error}",
                self.as_str()
            ))
        })?;
        if whole.len() > limit {
            return Err(ApiError::new(
                http::StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the body of {} bytes unpacks to more than {limit} bytes; the server's --max-body-bytes \
                     sets this limit",
                    packed.len()
                ),
            ));
        }
        Ok(whole)
    }

    /// Packs an answer, fast rather than small. Takes CPU: not for the threads that move bytes.
    pub fn pack(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut packed = Vec::with_capacity(plain.len() / 2);
        match self {
            Self::Gzip => GzEncoder::new(plain, Compression::fast()).read_to_end(&mut packed)?,
            Self::Deflate => {
                ZlibEncoder::new(plain, Compression::fast()).read_to_end(&mut packed)?
            }
            Self::Zstd => return zstd::bulk::compress(plain, 1),
        };
        Ok(packed)
    }

    /// The answer's header.
    #[must_use]
    pub const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// Unpacks a request's body, if it is packed.
pub async fn unpacked(
    coding: Option<Coding>,
    body: Bytes,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let Some(coding) = coding else {
        return Ok(body);
    };
    // A small body may unpack to a large one: only the limit says how long it takes.
    let unpacked = spawn_blocking(move || coding.unpack(&body, limit)).await;
    let unpacked = unpacked
        .map_err(|error| ApiError::internal(format!("unpacking the body stopped: {error}")))?;
    Ok(unpacked?.into())
}

/// Packs an answer if it is large enough; one that cannot be packed goes as it is.
pub async fn packed(response: Response, coding: Coding) -> Response {
    let is_whole = response.body().size_hint().exact();
    let is_worth_it = is_whole.is_some_and(|size| size >= WORTH_PACKING as u64);
    if !is_worth_it || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(plain) = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
    else {
        // A whole body has no more to wait for, and so nothing that could fail.
        return Response::from_parts(parts, Body::empty());
    };
    let copy = plain.clone();
    match spawn_blocking(move || coding.pack(&copy)).await {
        Ok(Ok(packed)) if packed.len() < plain.len() => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts
                .headers
                .insert(header::CONTENT_ENCODING, coding.header());
            let vary = HeaderValue::from_static("accept-encoding");
            parts.headers.insert(header::VARY, vary);
            Response::from_parts(parts, packed.into())
        }
        _ => Response::from_parts(parts, plain.into()),
    }
}

fn zstd(packed: &[u8]) -> std::io::Result<impl Read + '_> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(decoder)
}

/// The two bytes before zlib's data: the method is 8, and both as a number are a multiple of 31.
fn has_zlib_head(packed: &[u8]) -> bool {
    match packed {
        [method, flags, ..] => {
            method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        _ => false,
    }
}

/// `gzip;q=0.5` → `gzip`, 0.5
fn weighted(item: &str) -> (&str, f32) {
    let (name, rest) = item.split_once(';').unwrap_or((item, ""));
    let weight = rest
        .trim()
        .strip_prefix("q=")
        .map_or(1.0, |number| number.trim().parse().unwrap_or(0.0));
    (name.trim(), weight)
}

fn unread(headers: &HeaderMap) -> ApiError {
    let all: Vec<String> = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    ApiError::unsupported(format!(
        "the body has the content encoding {:?}; send it as it is, or with one of gzip, deflate, zstd",
        all.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let plain: Vec<u8> = (0..100_000_u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect();
        for coding in Coding::ALL {
            let packed = coding.pack(&plain).unwrap();
            assert!(packed.len() < plain.len() / 2, "{coding:?} packs");
            assert_eq!(
                coding.unpack(&packed, plain.len()),
                Ok(plain.clone()),
                "{coding:?}"
            );
        }
        let mut raw = Vec::new();
        flate2::read::DeflateEncoder::new(&plain[..], Compression::fast())
            .read_to_end(&mut raw)
            .unwrap();
        assert_eq!(
            Coding::Deflate.unpack(&raw, plain.len()),
            Ok(plain.clone()),
            "without a head"
        );
        let twice = [
            Coding::Gzip.pack(&plain).unwrap(),
            Coding::Gzip.pack(&plain).unwrap(),
        ];
        let whole = Coding::Gzip.unpack(&twice.concat(), 1 << 20).unwrap();
        assert_eq!(whole.len(), plain.len() * 2, "two members are one body");
    }

    #[test]
    fn a_bomb_is_413_and_holds_no_more_than_the_limit() {
        let zeros = vec![0; 50 << 20];
        for coding in Coding::ALL {
            let packed = coding.pack(&zeros).unwrap();
            assert!(packed.len() < 1 << 20, "{coding:?} packs zeros well");
            let error = coding.unpack(&packed, 1 << 20).unwrap_err();
            assert_eq!(error.code, StatusCode::PAYLOAD_TOO_LARGE, "{coding:?}");
            assert!(error.message.contains("1048576 bytes"), "{}", error.message);
            assert!(
                coding.unpack(&packed, 50 << 20).is_ok(),
                "{coding:?}: exactly the limit fits"
            );
        }
    }

    #[test]
    fn what_is_broken_or_cut_is_400() {
        for coding in Coding::ALL {
            let packed = coding.pack(&[7; 5000]).unwrap();
            for body in [
                &b"{}"[..],
                &packed[..packed.len() - 3],
                b"\xff\xff\xff\xff\xff",
            ] {
                let error = coding.unpack(body, 1 << 20).unwrap_err();
                assert_eq!(error.code, StatusCode::BAD_REQUEST, "{coding:?} {body:?}");
            }
        }
    }

    #[test]
    fn a_request_is_packed_once_or_refused() {
        let of = |values: &[&str]| Coding::of_request(&headers(header::CONTENT_ENCODING, values));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["identity"]), Ok(None));
        assert_eq!(of(&["GZip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["x-gzip, identity"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["zstd"]), Ok(Some(Coding::Zstd)));
        for values in [
            &["br"][..],
            &["gzip, gzip"],
            &["gzip", "zstd"],
            &["gzip;q=1"],
        ] {
            let error = of(values).unwrap_err();
            assert_eq!(error.code, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{values:?}");
            assert!(error.message.contains(values[0]), "{}", error.message);
        }
    }

    #[test]
    fn the_client_chooses_how_the_answer_is_packed() {
        for (accept, coding) in [
            ("", None),
            ("identity", None),
            ("br", None),
            ("gzip", Some(Coding::Gzip)),
            ("gzip, deflate, zstd", Some(Coding::Zstd)),
            ("gzip;q=1.0, zstd;q=0.5", Some(Coding::Gzip)),
            ("gzip;q=0, *", Some(Coding::Zstd)),
            ("*;q=0", None),
            ("gzip;q=x", None),
            ("deflate;q=0.2, identity;q=0.1", Some(Coding::Deflate)),
        ] {
            let headers = headers(header::ACCEPT_ENCODING, &[accept]);
            assert_eq!(Coding::of_answer(&headers), coding, "{accept:?}");
        }
    }
}
