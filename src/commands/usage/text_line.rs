//! An access line as text. Only a line of this whole form is one: a message may quote another.

use std::str;

use memchr::{memchr, memmem};

use super::head::Time;
use super::record::{Record, amount, is_status};
use crate::proxy::usage::tokens::Tokens;

/// What stands behind each number of attempts, milliseconds and bytes.
const AFTER_NUMBERS: [&[u8]; 5] = [b" ttfb_ms=", b" duration_ms=", b" in=", b" out=", b" end="];

/// Takes the message of a line apart. `None`: it is no access line.
pub fn parse(time: Time, message: &[u8]) -> Option<Record<'_>> {
    let mut rest = message;
    let peer = until(&mut rest, b" \"")?;
    if peer.is_empty() || !peer.iter().all(is_of_address) {
        return None;
    }
    let method = until(&mut rest, b" ")?;
    let path = until(&mut rest, b"\" ")?;
    if !is_word(method) || !is_word(path) {
        return None;
    }
    let status = number(until(&mut rest, b" config='")?)?;
    let status = u16::try_from(status).ok().filter(|code| is_status(*code))?;
    let config = until(&mut rest, b"' attempts=")?;
    if memmem::find(config, b" config='").is_some() {
        // Two lines run into each other.
        return None;
    }
    let mut numbers = [0; 5];
    for (number, next) in numbers.iter_mut().zip(AFTER_NUMBERS) {
        *number = self::number(until(&mut rest, next)?)?;
    }
    let [_, first_byte, duration, _, bytes_out] = numbers;
    let end = word(&mut rest)?;
    let mut record = Record {
        method: method.into(),
        path: path.into(),
        status,
        config: config.into(),
        end: end.into(),
        has_begun: bytes_out > 0 || first_byte < duration,
        ..Record::at(time)
    };
    fields(rest, &mut record)?;
    Some(record)
}

/// Reads the fields behind `end`, of which the id is always there.
fn fields<'a>(mut rest: &'a [u8], record: &mut Record<'a>) -> Option<()> {
    let mut has_id = false;
    let (mut input, mut cached, mut output) = (None, 0, 0);
    while !rest.is_empty() {
        rest = rest.strip_prefix(b" ")?;
        let (name, value) = field(&mut rest)?;
        match name {
            b"model" => record.model = value.into(),
            b"agent" => record.agent = value.into(),
            b"client" => record.client = value.into(),
            b"input_tokens" => input = Some(number(value)?),
            b"cached_tokens" => cached = number(value)?,
            b"output_tokens" => output = number(value)?,
            b"cost" => {
                let cost = str::from_utf8(value).ok()?.parse().ok()?;
                record.cost = Some(amount(cost)?);
            }
            b"id" => has_id = true,
            _ => {}
        }
    }
    record.tokens = input.map(|input| Tokens {
        input,
        cached,
        output,
    });
    has_id.then_some(())
}

/// Takes `name=value` or `name='value'` off the front.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let name = until(rest, b"=")?;
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
    if name.is_empty() || !name.iter().all(is_name) {
        return None;
    }
    if let Some(quoted) = rest.strip_prefix(b"'") {
        *rest = quoted;
        return Some((name, until(rest, b"'")?));
    }
    Some((name, word(rest)?))
}

/// Takes what stands before `stop` off the front, and `stop` itself.
fn until<'a>(rest: &mut &'a [u8], stop: &[u8]) -> Option<&'a [u8]> {
    let at = match stop {
        [byte] => memchr(*byte, rest)?,
        _ => memmem::find(rest, stop)?,
    };
    let before = &rest[..at];
    *rest = &rest[at + stop.len()..];
    Some(before)
}

/// Takes what stands before the next blank off the front, or all there is.
fn word<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr(b' ', rest).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    is_word(word).then_some(word)
}

/// Whether it can be a value without quotes.
fn is_word(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'');
    !text.is_empty() && text.iter().all(is_plain)
}

/// Whether the byte can stand in an address with a port.
fn is_of_address(byte: &u8) -> bool {
    byte.is_ascii_hexdigit() || b".:[]%".contains(byte)
}

/// Reads digits; `None` where a number is none that the proxy writes.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
