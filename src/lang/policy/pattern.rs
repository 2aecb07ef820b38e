//! Texts with `*`, `?` and `${variables}` in them.

use std::borrow::Cow;

use super::Question;

/// Stand for `*` and `?` among bytes of UTF-8, which these never are: what a variable brings in is never a wildcard.
const ANY: u8 = 0xff;
const ONE: u8 = 0xfe;

/// What a text is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Box<[Part]>,
    is_caseless: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Bytes, with [`ANY`] and [`ONE`] among them.
    Text(Box<[u8]>),
    /// A condition key in lower case, and what stands in when it has no value.
    Variable(Box<str>, Option<Box<str>>),
    /// The name of the API that the policy belongs to.
    Own,
}

/// How a text of a document is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// Whether `*` and `?` stand for others.
    pub(super) has_wildcards: bool,
    /// Whether `${…}` stands for a value.
    pub(super) has_variables: bool,
    /// Whether case does not matter (ASCII).
    pub(super) is_caseless: bool,
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub(super) fn read(text: &str, reading: Reading) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(inside) = rest.strip_prefix("${").filter(|_| reading.has_variables) {
                let (inside, behind) = inside.split_once('}').ok_or("has a `${` without its `}`")?;
                rest = behind;
                match inside {
                    // Wildcards that are meant literally.
                    "*" | "?" | "$" => bytes.extend_from_slice(inside.as_bytes()),
                    _ => {
                        parts.extend(text_part(&mut bytes));
                        parts.push(variable(inside)?);
                    }
                }
                continue;
            }
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            match c {
                '*' if reading.has_wildcards => bytes.push(ANY),
                '?' if reading.has_wildcards => bytes.push(ONE),
                _ if reading.is_caseless => {
                    bytes.extend_from_slice(c.to_ascii_lowercase().encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        parts.extend(text_part(&mut bytes));
        Ok(Self { parts: parts.into(), is_caseless: reading.is_caseless })
    }

    /// The same, behind the name of the policy's own API.
    pub(super) fn behind_own(self) -> Self {
        let parts = std::iter::once(Part::Own).chain(self.parts).collect();
        Self { parts, ..self }
    }

    /// Whether it is the same for every question.
    pub(super) fn is_fixed(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Whether it is `*`.
    pub(super) fn is_everything(&self) -> bool {
        matches!(&*self.parts, [Part::Text(bytes)] if **bytes == [ANY])
    }

    /// Whether all of a text fits. A variable without a value fits nothing.
    pub(super) fn matches(&self, question: &Question<'_>, text: &str) -> bool {
        let Some(pattern) = self.filled(question) else { return false };
        // Most patterns differ from most texts in what comes before the first wildcard.
        let fixed = pattern.iter().position(|byte| matches!(*byte, ANY | ONE)).unwrap_or(pattern.len());
        let (Some((fixed, pattern)), Some((start, text))) =
            (pattern.split_at_checked(fixed), text.as_bytes().split_at_checked(fixed))
        else {
            return false;
        };
        if !(if self.is_caseless { fixed.eq_ignore_ascii_case(start) } else { fixed == start }) {
            return false;
        }
        if self.is_caseless {
            fits(pattern, text, |byte| byte.to_ascii_lowercase())
        } else {
            fits(pattern, text, |byte| byte)
        }
    }

    /// Whether a name fits part by part, the parts between its first five colons compared each by itself, so that a
    /// wildcard stays within its own.
    pub(super) fn matches_arn(&self, question: &Question<'_>, text: &str) -> bool {
        let Some(pattern) = self.filled(question) else { return false };
        let mut patterns = pattern.splitn(6, |byte| *byte == b':');
        let mut texts = text.as_bytes().splitn(6, |byte| *byte == b':');
        loop {
            match (patterns.next(), texts.next()) {
                (Some(pattern), Some(text)) if fits(pattern, text, |byte| byte) => {}
                (None, None) => return true,
                (Some(_) | None, Some(_) | None) => return false,
            }
        }
    }

    fn filled(&self, question: &Question<'_>) -> Option<Cow<'_, [u8]>> {
        match &*self.parts {
            [] => return Some(Cow::Borrowed(&[])),
            [Part::Text(bytes)] => return Some(Cow::Borrowed(bytes)),
            _ => {}
        }
        let mut filled = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(bytes) => filled.extend_from_slice(bytes),
                Part::Own => filled.extend_from_slice(question.own.as_bytes()),
                Part::Variable(key, default) => {
                    let values = question.facts.values(key);
                    let value = match (values.as_slice(), default) {
                        ([one], _) => one,
                        ([], Some(default)) => &**default,
                        _ => return None,
                    };
                    if self.is_caseless {
                        filled.extend(value.bytes().map(|byte| byte.to_ascii_lowercase()));
                    } else {
                        filled.extend_from_slice(value.as_bytes());
                    }
                }
            }
        }
        Some(Cow::Owned(filled))
    }
}

fn text_part(bytes: &mut Vec<u8>) -> Option<Part> {
    (!bytes.is_empty()).then(|| Part::Text(std::mem::take(bytes).into()))
}

/// `aws:username` or `aws:username, 'nobody'`.
fn variable(inside: &str) -> Result<Part, &'static str> {
    let (key, default) = match inside.split_once(',') {
        None => (inside, None),
        Some((key, default)) => {
            let default = default.trim().strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
            (key, Some(default.ok_or("has a variable whose default is not in `'`")?))
        }
    };
    let key = key.trim();
    if !super::parse::is_key(key) {
        return Err("has a variable that is no condition key such as `${aws:username}`");
    }
    Ok(Part::Variable(key.to_ascii_lowercase().into(), default.map(Into::into)))
}

/// Whether all of `text` fits. Goes back to the last `*` only, which is enough: what an earlier one could give up, the last
/// one can take. So the steps are at most the product of the lengths.
fn fits(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(&ANY) => {
                back = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(&ONE) => {
                p += 1;
                t = next_char(text, t);
                continue;
            }
            Some(&wanted) if wanted == fold(byte) => {
                p += 1;
                t += 1;
                continue;
            }
            Some(_) | None => {}
        }
        let Some((after, from)) = back else { return false };
        let from = next_char(text, from);
        back = Some((after, from));
        (p, t) = (after, from);
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == ANY)
}

fn next_char(text: &[u8], mut at: usize) -> usize {
    at += 1;
    while text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80) {
        at += 1;
    }
    at
}
