//! Header lines exactly as received: original order, duplicates and case (RFC 9110 section 5). No I/O.
//!
//! For both directions. A proxy forwards most headers without looking at them, so they are kept as
//! slices of one copied head instead of being parsed into a map.

use std::fmt;
use std::ops::Range;

/// The most options in the Connection headers of one message. A connection has a handful; more would
/// only make every header name be compared with each of them.
pub const MAX_OPTIONS: usize = 64;

/// Enough lines for nearly all heads. Space for all the lines that a head may have would fill KiBs of
/// stack, which pushes other data out of the cache.
const FEW_LINES: usize = 32;
/// The largest block whose memory is reused for the next head, in bytes of header lines.
const MAX_REUSED_BYTES: usize = 4096;
/// The largest block whose memory is reused for the next head, in lines.
const MAX_REUSED_LINES: usize = 64;

/// Defines [`KnownHeader`] and its lookup from one line for each header, its name in lower case.
macro_rules! known_headers {
    ($($header:ident = $name:literal,)*) => {
        /// The headers that this program reads, sets or does not forward. All others are `Other`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum KnownHeader {
            Other,
            $($header,)*
        }

        impl KnownHeader {
            /// Returns the header with this name, in any case. Called once per header line.
            pub fn of(name: &[u8]) -> KnownHeader {
                /// The lengths of the names as patterns, so that the length is matched first.
                #[allow(non_upper_case_globals)]
                mod length {
                    $(pub const $header: usize = $name.len();)*
                }
                match name.len() {
                    $(length::$header if name.eq_ignore_ascii_case($name) => KnownHeader::$header,)*
                    _ => KnownHeader::Other,
                }
            }
        }

        #[cfg(test)]
        const KNOWN_HEADERS: &[(KnownHeader, &[u8])] = &[$((KnownHeader::$header, $name),)*];
    };
}

known_headers! {
    AltSvc = b"alt-svc",
    ApiKey = b"api-key",
    Authorization = b"authorization",
    ClearSiteData = b"clear-site-data",
    Connection = b"connection",
    ContentEncoding = b"content-encoding",
    ContentLength = b"content-length",
    ContentType = b"content-type",
    Cookie = b"cookie",
    Expect = b"expect",
    Host = b"host",
    KeepAlive = b"keep-alive",
    Location = b"location",
    OcpApimSubscriptionKey = b"ocp-apim-subscription-key",
    Origin = b"origin",
    ProxyAuthenticate = b"proxy-authenticate",
    ProxyAuthorization = b"proxy-authorization",
    ProxyConnection = b"proxy-connection",
    Referer = b"referer",
    RequestId = b"request-id",
    RetryAfter = b"retry-after",
    RetryAfterMs = b"retry-after-ms",
    SecFetchDest = b"sec-fetch-dest",
    SecFetchMode = b"sec-fetch-mode",
    SecFetchSite = b"sec-fetch-site",
    SecPurpose = b"sec-purpose",
    ServiceWorker = b"service-worker",
    ServiceWorkerAllowed = b"service-worker-allowed",
    SessionId = b"session-id",
    SessionIdOld = b"session_id",
    SetCookie = b"set-cookie",
    SetCookie2 = b"set-cookie2",
    Te = b"te",
    Trailer = b"trailer",
    TransferEncoding = b"transfer-encoding",
    Upgrade = b"upgrade",
    UserAgent = b"user-agent",
    XApiKey = b"x-api-key",
    XClaudeCodeSessionId = b"x-claude-code-session-id",
    XContentTypeOptions = b"x-content-type-options",
    XFlowProxyError = b"x-flow-proxy-error",
    XGoogApiKey = b"x-goog-api-key",
    XLitellmApiKey = b"x-litellm-api-key",
    XLitellmKeyMaxBudget = b"x-litellm-key-max-budget",
    XLitellmKeySpend = b"x-litellm-key-spend",
    XLitellmResponseCost = b"x-litellm-response-cost",
    XRequestId = b"x-request-id",
}

/// What the Connection headers of a message say about the connection (RFC 9110 section 7.6.1).
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectionOptions {
    /// One of the options is `close`.
    pub close: bool,
    /// One of the options is `keep-alive`.
    pub keep_alive: bool,
    /// There are more than [`MAX_OPTIONS`], so the message must be rejected.
    pub too_many: bool,
}

/// The header lines of a message.
#[derive(Clone, Default)]
pub struct HeaderBlock {
    /// Contains every line as it is sent, `Name: value` and CRLF. There may be other bytes in between.
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// One bit per [`KnownHeader`], set if a line has this name.
    present: u64,
}

/// The position of a header line in [`HeaderBlock::bytes`].
#[derive(Clone)]
struct Line {
    header: KnownHeader,
    name: Range<u32>,
    value: Range<u32>,
}

impl HeaderBlock {
    /// Replaces all lines by those at the start of `bytes`, and reuses their memory. Returns their length
    /// with the empty line after them, or `None` if that line is missing.
    ///
    /// # Errors
    /// [`httparse::Error::TooManyHeaders`] for more than `MAX` lines, any other for a name or a value that
    /// RFC 9110 sections 5.6.2 and 5.5 do not allow.
    pub fn parse<const MAX: usize>(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<usize>, httparse::Error> {
        match self.parse_lines::<FEW_LINES>(bytes) {
            Err(httparse::Error::TooManyHeaders) => self.parse_lines::<MAX>(bytes),
            parsed => parsed,
        }
    }

    #[inline(never)]
    fn parse_lines<const MAX: usize>(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<usize>, httparse::Error> {
        let mut lines = [httparse::EMPTY_HEADER; MAX];
        Ok(match httparse::parse_headers(bytes, &mut lines)? {
            httparse::Status::Complete((length, lines)) => {
                self.replace(&bytes[..length], lines);
                Some(length)
            }
            httparse::Status::Partial => None,
        })
    }

    /// Replaces all lines by `lines`, which are slices of `head`. That is copied once.
    fn replace(&mut self, head: &[u8], lines: &[httparse::Header<'_>]) {
        // The limits on heads are far below 4 GiB, so positions fit in a u32.
        let range_of = |slice: &[u8]| {
            let start = (slice.as_ptr().addr() - head.as_ptr().addr()) as u32;
            start..start + slice.len() as u32
        };
        let (mut present, mut is_canonical) = (0, true);
        let lines = lines.iter().map(|line| {
            let name = line.name.as_bytes();
            let header = KnownHeader::of(name);
            present |= 1_u64 << header as u32;
            let line = Line {
                header,
                name: range_of(name),
                value: range_of(line.value),
            };
            is_canonical &= line.is_canonical(head);
            line
        });
        self.lines.clear();
        self.lines.extend(lines);
        self.present = present;
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        if !is_canonical {
            self.rewrite();
        }
    }

    /// Writes all lines anew, one directly after the other.
    #[cold]
    fn rewrite(&mut self) {
        let old = std::mem::take(&mut self.bytes);
        let mut append = |slice: &[u8]| {
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(slice);
            start..start + slice.len() as u32
        };
        for line in &mut self.lines {
            line.name = append(&old[line.name.start as usize..line.name.end as usize]);
            append(b": ");
            line.value = append(&old[line.value.start as usize..line.value.end as usize]);
            append(b"\r\n");
        }
    }

    /// Returns the block itself for [`HeaderBlock::parse`], or an empty one if it holds too much
    /// memory to be kept.
    #[must_use]
    pub fn reusable(self) -> HeaderBlock {
        if self.bytes.capacity() <= MAX_REUSED_BYTES && self.lines.capacity() <= MAX_REUSED_LINES {
            self
        } else {
            HeaderBlock::default()
        }
    }

    /// Returns the number of lines.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Returns the lines for which `keeps(header, name)` is true, as they are sent. Each slice is one
    /// or more complete lines.
    pub fn raw_lines(
        &self,
        keeps: impl Fn(KnownHeader, &[u8]) -> bool + Clone,
    ) -> impl Iterator<Item = &[u8]> + Clone {
        let mut rest = self.lines.iter();
        std::iter::from_fn(move || {
            let is_kept = |line: &&Line| keeps(line.header, self.slice(&line.name));
            let first = rest.find(is_kept)?;
            let mut end = first.range().end;
            // Adjacent lines are returned as one slice.
            while let Some(next) = rest.as_slice().first()
                && next.name.start == end
                && is_kept(&next)
            {
                end = next.range().end;
                rest.next();
            }
            Some(self.slice(&(first.name.start..end)))
        })
    }

    /// Returns the name and value of each line.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.lines
            .iter()
            .map(|line| (self.slice(&line.name), self.slice(&line.value)))
    }

    /// Returns the value of the first line called `name`, in lower case. For headers that are read only in
    /// errors; the others are [`KnownHeader`]s.
    pub fn find(&self, name: &[u8]) -> Option<&[u8]> {
        let mut lines = self.iter();
        lines.find_map(|(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Whether the body is a stream of server-sent events.
    pub fn is_event_stream(&self) -> bool {
        self.value(KnownHeader::ContentType).is_some_and(|value| {
            let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        })
    }

    /// Whether the body has no content coding. `identity`, `none` and nothing are not registered (RFC
    /// 9110 section 8.4), but they are sent.
    pub fn is_uncompressed(&self) -> bool {
        self.values(KnownHeader::ContentEncoding).all(|coding| {
            let coding = coding.trim_ascii();
            coding.is_empty()
                || [&b"identity"[..], b"none"]
                    .iter()
                    .any(|none| coding.eq_ignore_ascii_case(none))
        })
    }

    /// Returns the value of the first line with this name.
    pub fn value(&self, header: KnownHeader) -> Option<&[u8]> {
        self.values(header).next()
    }

    /// Returns the values of all lines with this name.
    pub fn values(&self, header: KnownHeader) -> impl Iterator<Item = &[u8]> {
        let is_present = self.present & 1_u64 << header as u32 != 0;
        let lines = if is_present { &self.lines[..] } else { &[] };
        lines
            .iter()
            .filter(move |line| line.header == header)
            .map(|line| self.slice(&line.value))
    }

    /// Returns the options of all Connection headers: names of hop-by-hop headers, `close` and
    /// `keep-alive` (RFC 9110 section 7.6.1).
    pub fn connection_options(&self) -> impl Iterator<Item = &[u8]> {
        self.values(KnownHeader::Connection)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|option| !option.is_empty())
    }

    /// Returns what [`HeaderBlock::connection_options`] say about the connection itself.
    pub fn connection(&self) -> ConnectionOptions {
        let mut options = ConnectionOptions::default();
        for (index, option) in self.connection_options().enumerate() {
            options.close |= option.eq_ignore_ascii_case(b"close");
            options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            options.too_many |= index >= MAX_OPTIONS;
        }
        options
    }

    /// Removes all lines with this name.
    pub fn remove(&mut self, header: KnownHeader) {
        self.lines.retain(|line| line.header != header);
        self.present &= !(1_u64 << header as u32);
    }

    /// Replaces all lines with this name by one with `value`, in the place of the first.
    pub fn merge(&mut self, header: KnownHeader, value: &str) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value.as_bytes());
        let merged = start..self.bytes.len() as u32;
        let mut is_first = true;
        self.lines.retain_mut(|line| {
            if line.header != header {
                return true;
            }
            line.value = merged.clone();
            std::mem::replace(&mut is_first, false)
        });
        self.rewrite();
    }
}

impl Line {
    /// Returns the range of the line with its CRLF. Only for a line in its canonical form.
    fn range(&self) -> Range<u32> {
        self.name.start..self.value.end + 2
    }

    /// Whether `head` contains the line as it is sent. Nearly all lines arrive like this.
    fn is_canonical(&self, head: &[u8]) -> bool {
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

/// Shows names only, because values may be credentials and cookies.
impl fmt::Debug for HeaderBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| String::from_utf8_lossy(name));
        formatter.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
impl HeaderBlock {
    /// Returns a block with one line for each pair of name and value.
    pub fn of(pairs: &[(&str, &str)]) -> HeaderBlock {
        let line = |(name, value): &(&str, &str)| format!("{name}: {value}\r\n");
        let head = pairs.iter().map(line).collect::<String>() + "\r\n";
        let mut block = HeaderBlock::default();
        assert_eq!(block.parse::<64>(head.as_bytes()), Ok(Some(head.len())));
        block
    }
}

#[cfg(test)]
mod tests;
