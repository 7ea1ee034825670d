//! What a body is written in: its media type, its characters and its encoding. What isn't read here is answered with 415, and
//! named.

use axum::http::{HeaderMap, StatusCode, header};

use super::problem::Problem;

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// Whether a request's body is declared to be of a media type.
pub(super) fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
}

/// Refuses a body that isn't declared as a media type of text, or whose characters or encoding can't be read.
pub(super) fn check_text(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    if !is_of_type(headers, expected) {
        return Err(unsupported(format!("the body has to be declared as Content-Type: {expected}")));
    }
    check_encoding(headers)?;
    match charset(headers) {
        Some(charset)
            if !["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known)) =>
        {
            Err(unsupported(format!("the body is declared as text in {charset:?}; it has to be UTF-8")))
        }
        _ => Ok(()),
    }
}

/// Refuses a body that is declared as encoded.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let encodings: Vec<String> = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    let encodings = encodings.join(", ");
    let is_plain =
        encodings.split(',').map(str::trim).all(|name| name.is_empty() || name.eq_ignore_ascii_case("identity"));
    if is_plain {
        return Ok(());
    }
    let detail =
        format!("the body is declared as Content-Encoding: {encodings}; it has to be sent without an encoding");
    Err(unsupported(detail).accepting_no_encoding())
}

/// The characters that a body is declared to be written in.
fn charset(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parameters = value.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, charset) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Some(charset.trim().trim_matches('"'))
}

/// How a body begins that is no text in UTF-8, and what it is then. The longer beginnings come first.
const BEGINNINGS: [(&[u8], &str); 14] = [
    (b"\xff\xfe\x00\x00", "text in UTF-32 with a byte-order mark"),
    (b"\x00\x00\xfe\xff", "text in UTF-32 with a byte-order mark"),
    (b"\xef\xbb\xbf", "text with a byte-order mark, EF BB BF"),
    (b"\xff\xfe", "text in UTF-16 with a byte-order mark"),
    (b"\xfe\xff", "text in UTF-16 with a byte-order mark"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"BZh", "compressed with bzip2"),
    (b"PK\x03\x04", "a zip"),
    (b"\x78\x01", "compressed with zlib (deflate)"),
    (b"\x78\x9c", "compressed with zlib (deflate)"),
    (b"\x78\xda", "compressed with zlib (deflate)"),
];

/// Refuses bytes that are no text in UTF-8, by how they begin.
pub(super) fn check_begin(bytes: &[u8]) -> Result<(), Problem> {
    let known = BEGINNINGS.iter().find(|(begin, _)| bytes.starts_with(begin)).map(|(_, what)| *what);
    // Texts here begin with a character of ASCII.
    let what = known.or(match bytes {
        [0, 0, 0, first, ..] | [first, 0, 0, 0, ..] if *first != 0 => Some("text in UTF-32"),
        [0, first, ..] | [first, 0, ..] if *first != 0 => Some("text in UTF-16"),
        _ => None,
    });
    match what {
        None => Ok(()),
        Some(what) => Err(unsupported(format!("the body is {what}; it has to be plain text in UTF-8"))),
    }
}
