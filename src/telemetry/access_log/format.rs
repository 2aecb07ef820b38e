//! The format of access log lines, compiled once (specification 11.5 and 11.6).

use std::cell::RefCell;
use std::io::Write as _;
use std::net::IpAddr;

use super::entry::{Entry, Field};
use crate::clock::EpochMillis;

/// A line of the common log format, as the service's own example has it (specification 11.5).
pub const DEFAULT: &str = concat!(
    "$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime] ",
    "\"$context.eventType $context.routeKey $context.connectionId\" $context.status $context.requestId"
);

const MAX_FORMAT_BYTES: usize = 3072;
/// What one variable may add to a line: a client chooses some of them.
const MAX_VALUE_BYTES: usize = 1024;

const PREFIX: &str = "$context.";

/// Why a format is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Lines could not be found again.
    #[error("an access log format must contain $context.requestId or $context.extendedRequestId")]
    NoRequestId,
    /// A log line is one line.
    #[error("an access log format must be one line")]
    NotOneLine,
    /// Too long.
    #[error("an access log format has at most {MAX_FORMAT_BYTES} bytes, this one has {0}")]
    TooLong(usize),
}

/// A compiled format.
///
/// Text stands for itself; `$context.name` becomes the variable's value, or `-` when it has none or nobody knows it.
/// Values are made harmless: quotes and backslashes get a backslash, control characters become `\u00xx`. A line stays
/// one line, text in quotes stays in them, and a format that looks like JSON gives JSON.
#[derive(Debug, Clone)]
pub struct Format {
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(Box<str>),
    Field(Field),
    /// A variable that only the caller may know; the path after `$context.`.
    Other(Box<str>),
}

impl Format {
    /// Compiles a format.
    ///
    /// # Errors
    /// When it has no request id, more than one line, or more than 3,072 bytes.
    pub fn compile(text: &str) -> Result<Self, FormatError> {
        if text.len() > MAX_FORMAT_BYTES {
            return Err(FormatError::TooLong(text.len()));
        }
        if text.contains(['\n', '\r']) {
            return Err(FormatError::NotOneLine);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(PREFIX) {
            literal.push_str(before);
            let (path, tail) = split_path(after);
            rest = tail;
            if path.is_empty() {
                literal.push_str(PREFIX);
                continue;
            }
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
            }
            pieces.push(Field::parse(path).map_or_else(|| Piece::Other(path.into()), Piece::Field));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Field(Field::RequestId))) {
            return Err(FormatError::NoRequestId);
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// Appends the line for `entry`, without a line end.
    pub fn render(&self, buf: &mut Vec<u8>, entry: &Entry<'_>) {
        for piece in &self.pieces {
            let start = buf.len();
            match piece {
                Piece::Text(text) => buf.extend_from_slice(text.as_bytes()),
                Piece::Field(field) => entry.write(*field, buf),
                Piece::Other(path) => {
                    if let Some(value) = entry.more.and_then(|more| more(path)) {
                        write_value(&value, buf);
                    }
                }
            }
            if buf.len() == start {
                buf.push(b'-');
            }
        }
    }
}

impl Default for Format {
    fn default() -> Self {
        // The default has a request id and one line, as a test proves; anything else would be an empty line.
        Self::compile(DEFAULT).unwrap_or(Self { pieces: Box::default() })
    }
}

/// Cuts a variable's path off the front: names joined by single dots. A dot at the end belongs to the text.
fn split_path(text: &str) -> (&str, &str) {
    let mut end = 0;
    for (i, c) in text.char_indices() {
        if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            end = i + 1;
        } else if c != '.' || end != i {
            break;
        }
    }
    text.split_at_checked(end).unwrap_or(("", text))
}

/// Appends a value, made harmless.
pub(super) fn write_value(value: &str, buf: &mut Vec<u8>) {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    if value.len() <= MAX_VALUE_BYTES && value.bytes().all(plain) {
        buf.extend_from_slice(value.as_bytes());
        return;
    }
    let mut utf8 = [0; 4];
    for (at, c) in value.char_indices() {
        if at + c.len_utf8() > MAX_VALUE_BYTES {
            break;
        }
        match c {
            '"' | '\\' => buf.extend_from_slice(&[b'\\', c as u8]),
            // Separators that some readers take for the end of a line.
            '\u{2028}' | '\u{2029}' => {
                write_formatted(format_args!("\\u{:04x}", u32::from(c)), buf);
            }
            c if c.is_control() => write_formatted(format_args!("\\u{:04x}", u32::from(c)), buf),
            c => buf.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
        }
    }
}

/// Appends a number. By hand, since the formatting machinery costs more than all else in a line.
pub(super) fn write_number(value: u64, buf: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut rest = value;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    buf.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// Appends an address.
pub(super) fn write_ip(address: IpAddr, buf: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (i, octet) in address.octets().into_iter().enumerate() {
                if i > 0 {
                    buf.push(b'.');
                }
                write_number(octet.into(), buf);
            }
        }
        IpAddr::V6(address) => write_formatted(format_args!("{address}"), buf),
    }
}

fn write_formatted(text: std::fmt::Arguments<'_>, buf: &mut Vec<u8>) {
    // A vector takes everything.
    let _infallible = buf.write_fmt(text);
}

/// Appends `dd/MMM/yyyy:HH:mm:ss +0000`, made once a second.
pub(super) fn write_time(time: EpochMillis, buf: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    LAST.with_borrow_mut(|(second, text)| {
        if *second != time.0 / 1000 {
            *second = time.0 / 1000;
            *text = time.to_request_time();
        }
        buf.extend_from_slice(text.as_bytes());
    });
}
