//! Field lines as they came: in their order, repeats included, in one copy of their head. No I/O.
//!
//! For both directions: a message is passed on, not understood, so its lines are kept as slices
//! rather than in a map, and names keep their case.

use std::fmt;
use std::ops::Range;

/// A connection has a handful of options. More are from somebody who wants each field's name to be
/// compared with each of them.
pub const MAX_OPTIONS: usize = 64;

/// The most memory that is kept for the next head, in bytes of field lines and in lines.
const KEPT: (usize, usize) = (4096, 64);

/// The fields that this program looks at or does not simply pass on; all others are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KnownHeader {
    Other,
    Authorization,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Expect,
    Host,
    KeepAlive,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    RetryAfter,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    XRequestId,
}

impl KnownHeader {
    /// Which one `name` is, in whatever case. Asked once for each line.
    pub fn of(name: &[u8]) -> KnownHeader {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => KnownHeader::Te,
            4 if is(b"host") => KnownHeader::Host,
            6 if is(b"expect") => KnownHeader::Expect,
            6 if is(b"origin") => KnownHeader::Origin,
            7 if is(b"trailer") => KnownHeader::Trailer,
            7 if is(b"upgrade") => KnownHeader::Upgrade,
            10 if is(b"connection") => KnownHeader::Connection,
            10 if is(b"keep-alive") => KnownHeader::KeepAlive,
            11 if is(b"retry-after") => KnownHeader::RetryAfter,
            12 if is(b"content-type") => KnownHeader::ContentType,
            12 if is(b"x-request-id") => KnownHeader::XRequestId,
            13 if is(b"authorization") => KnownHeader::Authorization,
            14 if is(b"content-length") => KnownHeader::ContentLength,
            16 if is(b"content-encoding") => KnownHeader::ContentEncoding,
            16 if is(b"proxy-connection") => KnownHeader::ProxyConnection,
            17 if is(b"transfer-encoding") => KnownHeader::TransferEncoding,
            18 if is(b"proxy-authenticate") => KnownHeader::ProxyAuthenticate,
            19 if is(b"proxy-authorization") => KnownHeader::ProxyAuthorization,
            _ => KnownHeader::Other,
        }
    }
}

/// What the Connection fields of a head say (RFC 9110 section 7.6.1).
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectionOptions {
    /// `close` is one of them.
    pub closes: bool,
    /// `keep-alive` is one of them.
    pub keeps_alive: bool,
    /// There are more than [`MAX_OPTIONS`]: so many are refused.
    pub are_too_many: bool,
}

/// The field lines of a head.
#[derive(Clone, Default)]
pub struct HeaderBlock {
    /// Holds each line as it is to be sent, `Name: value` and CRLF; there may be other bytes between.
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// A bit for each [`Name`] that a line has.
    names: u32,
}

/// Where a field line lies in [`Fields::bytes`].
#[derive(Clone)]
struct Line {
    known: KnownHeader,
    name: Range<u32>,
    value: Range<u32>,
}

impl HeaderBlock {
    /// Copies `head` once, of which all `lines` must be slices, into the memory of these, whose lines
    /// are forgotten.
    #[must_use]
    pub fn reparse(mut self, head: &[u8], lines: &[httparse::Header<'_>]) -> HeaderBlock {
        // A head is far shorter than a u32 can say.
        let range_of = |piece: &[u8]| {
            let start = (piece.as_ptr().addr() - head.as_ptr().addr()) as u32;
            start..start + piece.len() as u32
        };
        let (mut names, mut is_plain) = (0, true);
        let lines = lines.iter().map(|line| {
            let name = line.name.as_bytes();
            let known = KnownHeader::of(name);
            names |= 1 << known as u32;
            let line = Line {
                known,
                name: range_of(name),
                value: range_of(line.value),
            };
            is_plain &= line.is_plain(head);
            line
        });
        self.lines.clear();
        self.lines.extend(lines);
        self.names = names;
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        if !is_plain {
            self.rewrite();
        }
        self
    }

    /// Writes all lines anew, one after the other.
    #[cold]
    fn rewrite(&mut self) {
        let old = std::mem::take(&mut self.bytes);
        let mut put = |text: &[u8]| {
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(text);
            start..start + text.len() as u32
        };
        for line in &mut self.lines {
            line.name = put(&old[line.name.start as usize..line.name.end as usize]);
            put(b": ");
            line.value = put(&old[line.value.start as usize..line.value.end as usize]);
            put(b"\r\n");
        }
    }

    /// These, to be refilled; or none, where they take more memory than is worth keeping.
    #[must_use]
    pub fn reusable(self) -> HeaderBlock {
        if self.bytes.capacity() <= KEPT.0 && self.lines.capacity() <= KEPT.1 {
            self
        } else {
            HeaderBlock::default()
        }
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    fn piece(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The lines that are to be kept as they are sent: each piece is one or more of them.
    pub fn raw_lines(
        &self,
        keeps: impl Fn(KnownHeader, &[u8]) -> bool + Clone,
    ) -> impl Iterator<Item = &[u8]> + Clone {
        let mut left = self.lines.iter();
        std::iter::from_fn(move || {
            let is_kept = |line: &&Line| keeps(line.known, self.piece(&line.name));
            let first = left.find(is_kept)?;
            let mut end = first.range().end;
            // Lines that lie side by side go out as one.
            while let Some(next) = left.as_slice().first()
                && next.name.start == end
                && is_kept(&next)
            {
                end = next.range().end;
                left.next();
            }
            Some(self.piece(&(first.name.start..end)))
        })
    }

    /// Name and value of each line.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.lines
            .iter()
            .map(|line| (self.piece(&line.name), self.piece(&line.value)))
    }

    /// The first value of the field `name`.
    pub fn value(&self, name: KnownHeader) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The values of all lines of the field `name`.
    pub fn values(&self, name: KnownHeader) -> impl Iterator<Item = &[u8]> {
        let is_there = self.names & 1 << name as u32 != 0;
        let lines = if is_there { &self.lines[..] } else { &[] };
        lines
            .iter()
            .filter(move |line| line.known == name)
            .map(|line| self.piece(&line.value))
    }

    /// The fields that concern this connection only, and other options of it.
    pub fn connection_options(&self) -> impl Iterator<Item = &[u8]> {
        self.values(KnownHeader::Connection)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|option| !option.is_empty())
    }

    /// What [`Fields::connection_options`] say about the connection itself.
    pub fn connection(&self) -> ConnectionOptions {
        let mut said = ConnectionOptions::default();
        for (index, option) in self.connection_options().enumerate() {
            said.closes |= option.eq_ignore_ascii_case(b"close");
            said.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            said.are_too_many |= index >= MAX_OPTIONS;
        }
        said
    }

    /// Drops all lines of the field `name`.
    pub fn remove(&mut self, name: KnownHeader) {
        self.lines.retain(|line| line.known != name);
        self.names &= !(1 << name as u32);
    }

    /// Makes all lines of the field `name` one, in the place of the first, with `value`.
    pub fn merge(&mut self, name: KnownHeader, value: &str) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value.as_bytes());
        let united = start..self.bytes.len() as u32;
        let mut is_first = true;
        self.lines.retain_mut(|line| {
            if line.known != name {
                return true;
            }
            line.value = united.clone();
            std::mem::replace(&mut is_first, false)
        });
        self.rewrite();
    }
}

impl Line {
    /// All of it, if it lies there as it is to be sent.
    fn range(&self) -> Range<u32> {
        self.name.start..self.value.end + 2
    }

    /// Whether it lies in `head` as it is to be sent, which nearly all do.
    fn is_plain(&self, head: &[u8]) -> bool {
        let (name_end, value_start) = (self.name.end as usize, self.value.start as usize);
        head.get(name_end..value_start) == Some(b": ")
            && head[self.value.end as usize..].starts_with(b"\r\n")
    }
}

impl PartialEq for HeaderBlock {
    fn eq(&self, other: &HeaderBlock) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for HeaderBlock {}

/// Names only: values hold credentials and cookies.
impl fmt::Debug for HeaderBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| String::from_utf8_lossy(name));
        formatter.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
impl HeaderBlock {
    /// The fields of `Name: value` pairs.
    pub fn of(pairs: &[(&str, &str)]) -> HeaderBlock {
        let line = |(name, value): &(&str, &str)| format!("{name}: {value}\r\n");
        let head = pairs.iter().map(line).collect::<String>() + "\r\n";
        let mut lines = [httparse::EMPTY_HEADER; 64];
        match httparse::parse_headers(head.as_bytes(), &mut lines) {
            Ok(httparse::Status::Complete((_, lines))) => {
                HeaderBlock::default().reparse(head.as_bytes(), lines)
            }
            other => panic!("{head:?}: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four() -> HeaderBlock {
        HeaderBlock::of(&[("HOST", "1"), ("b", "2"), ("host", "3"), ("Te", "4")])
    }

    #[test]
    fn names_are_found_in_any_case_and_kept_as_they_came() {
        let fields = four();
        assert_eq!(fields.value(KnownHeader::Host), Some(&b"1"[..]));
        assert_eq!(
            fields.values(KnownHeader::Host).collect::<Vec<_>>(),
            [b"1", b"3"]
        );
        assert_eq!(fields.value(KnownHeader::Origin), None);
        assert_eq!(fields.iter().next(), Some((&b"HOST"[..], &b"1"[..])));
    }

    #[test]
    fn each_known_name_is_told_from_all_others() {
        let mut seen = vec![];
        for text in [
            "Authorization",
            "Connection",
            "Content-Encoding",
            "Content-Length",
            "Content-Type",
            "Expect",
            "Host",
            "Keep-Alive",
            "Origin",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Retry-After",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "X-Request-Id",
        ] {
            let name = KnownHeader::of(text.as_bytes());
            assert_eq!(name, KnownHeader::of(text.to_ascii_lowercase().as_bytes()));
            assert!(
                name != KnownHeader::Other && !seen.contains(&name),
                "{text}"
            );
            seen.push(name);
            for length in 0..text.len() {
                let other = format!("{}_{}", &text[..length], &text[length + 1..]);
                assert_eq!(
                    KnownHeader::of(other.as_bytes()),
                    KnownHeader::Other,
                    "{other}"
                );
            }
        }
        assert_eq!(seen.len(), KnownHeader::XRequestId as usize);
    }

    #[test]
    fn nothing_is_left_of_what_was_there_before() {
        let head = b"Expect: x\r\n\r\n";
        let mut lines = [httparse::EMPTY_HEADER; 4];
        let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(head, &mut lines)
        else {
            panic!("it is a head");
        };
        let fields = four().reparse(head, lines);
        assert_eq!(fields, HeaderBlock::of(&[("Expect", "x")]));
        assert_eq!(fields.value(KnownHeader::Host), None);
        assert_eq!(fields.value(KnownHeader::Expect), Some(&b"x"[..]));
    }

    #[test]
    fn the_text_of_the_lines_is_plain_however_they_came() {
        for (head, plain) in [
            ("A: 1\r\nb: 2\r\n", "A: 1\r\nb: 2\r\n"),
            ("A:1\r\nb:  2\r\nc:\t3 \r\n", "A: 1\r\nb: 2\r\nc: 3\r\n"),
            ("A:\r\nb: \r\nc: x\r\n", "A: \r\nb: \r\nc: x\r\n"),
            // httparse takes these; what comes from a client has been refused before.
            ("A: 1\nb: 2\r\n", "A: 1\r\nb: 2\r\n"),
            ("A: 1\r\nb: 2\n", "A: 1\r\nb: 2\r\n"),
        ] {
            let head = format!("{head}\r\n");
            let mut lines = [httparse::EMPTY_HEADER; 4];
            let Ok(httparse::Status::Complete((_, lines))) =
                httparse::parse_headers(head.as_bytes(), &mut lines)
            else {
                panic!("it is a head");
            };
            let fields = HeaderBlock::default().reparse(head.as_bytes(), lines);
            let text: Vec<u8> = fields.raw_lines(|_, _| true).flatten().copied().collect();
            assert_eq!(String::from_utf8(text).unwrap(), plain, "{head:?}");
        }
    }

    #[test]
    fn lines_that_are_not_kept_are_left_out_and_the_others_keep_their_order() {
        let names = ["host", "a", "te", "b", "c"];
        let pairs = names.map(|name| (name, "x"));
        let mut fields = HeaderBlock::of(&pairs);
        for chosen in 0..1 << names.len() {
            let is_chosen = |name: &[u8]| {
                let at = names.iter().position(|other| other.as_bytes() == name);
                chosen >> at.unwrap() & 1 == 1
            };
            let text: Vec<u8> = fields
                .raw_lines(|_, name| is_chosen(name))
                .flatten()
                .copied()
                .collect();
            let chosen_names = names.iter().filter(|name| is_chosen(name.as_bytes()));
            let expected: String = chosen_names.map(|name| format!("{name}: x\r\n")).collect();
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
        assert_eq!(fields.raw_lines(|_, _| true).count(), 1, "it is one piece");
        fields.remove(KnownHeader::Te);
        assert_eq!(fields.raw_lines(|_, _| true).count(), 2);
    }

    #[test]
    fn much_memory_is_not_kept() {
        let value = "x".repeat(KEPT.0);
        let long = HeaderBlock::of(&[("a", &value)]);
        assert!(long.reusable().bytes.capacity() == 0);
        assert!(four().reusable().bytes.capacity() > 0);
        let many = HeaderBlock {
            lines: Vec::with_capacity(KEPT.1 + 1),
            ..HeaderBlock::default()
        };
        assert_eq!(many.reusable().lines.capacity(), 0);
    }

    #[test]
    fn lines_can_be_removed_and_united() {
        let mut fields = four();
        fields.remove(KnownHeader::Te);
        fields.merge(KnownHeader::Host, "13");
        assert_eq!(fields, HeaderBlock::of(&[("HOST", "13"), ("b", "2")]));
        assert_eq!(fields.value(KnownHeader::Te), None);
    }

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", HeaderBlock::of(&[("Authorization", "Bearer fake")]));
        assert_eq!(shown, r#"["Authorization"]"#);
    }
}
