//! A response as the client saw it.

use super::headers::{single_value, values};

/// How the end of a body is told (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body at all: HEAD, 1xx, 204, 304.
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Complete,
    /// The connection closed before Content-Length bytes had come.
    Short,
    /// The connection closed before the last chunk had come.
    WithoutLastChunk,
}

/// Status line and headers of a response.
#[derive(Debug, Clone)]
pub struct Head {
    pub version: String,
    pub status: u16,
    /// In the order in which they came. Bytes above 127 are read as Latin-1.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Returns the values of a header, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// Returns the value of a header that must not be repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        single_value(&self.headers, name)
    }

    /// Returns `x-flow-proxy-error`, or the empty string where it is no error of the proxy's own.
    pub fn error_code(&self) -> &str {
        self.header("x-flow-proxy-error").unwrap_or("")
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    pub framing: Framing,
    pub ended: Ended,
}

impl std::ops::Deref for Response {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts that this is the proxy's own error `code`.
    pub fn assert_error(&self, status: u16, code: &str) {
        self.assert_error_to("the request", status, code);
    }

    /// Asserts that this is the proxy's own error `code`, and names the request where it is not.
    pub fn assert_error_to(&self, request: &str, status: u16, code: &str) {
        let got = (self.status, self.error_code());
        assert_eq!(got, (status, code), "to {request}: {}", self.text());
    }

    pub fn assert_text(&self, status: u16, text: &str) {
        assert_eq!((self.status, self.text().as_str()), (status, text));
    }

    /// Asserts that the proxy announces that it closes the connection.
    pub fn assert_announces_close(&self) {
        let connection = self.header("connection").unwrap_or_default();
        assert!(
            connection.eq_ignore_ascii_case("close"),
            "announces the close: {connection:?}"
        );
    }

    /// Asserts what the body is and how it ended.
    pub fn assert_ended(&self, text: &str, ended: Ended) {
        assert_eq!((self.text().as_str(), self.ended), (text, ended));
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }
}

/// Reads a head without its empty line, strictly; panics where it is not one.
pub fn parse_head(text: &str) -> Head {
    assert!(
        !text.replace("\r\n", "").contains(['\r', '\n']),
        "bare CR or LF in {text:?}"
    );
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let (version, rest) = status_line.split_once(' ').expect("a status line");
    assert!(
        version == "HTTP/1.1" || version == "HTTP/1.0",
        "status line {status_line:?}"
    );
    let (status, _reason) = rest.split_once(' ').unwrap_or((rest, ""));
    assert_eq!(status.len(), 3, "status line {status_line:?}");
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header line");
        assert!(
            !name.is_empty() && !name.contains(' '),
            "header line {line:?}"
        );
        (name.to_owned(), value.trim().to_owned())
    });
    Head {
        version: version.to_owned(),
        status: status.parse().expect("a status"),
        headers: headers.collect(),
    }
}

/// Tells how the body behind this head is framed.
pub fn framing_of(head: &Head, method: &str) -> Framing {
    let length = head
        .header("content-length")
        .map(|text| text.parse().expect("a length"));
    let coding = head.header("transfer-encoding");
    assert!(
        length.is_none() || coding.is_none(),
        "both framings: {:?}",
        head.headers
    );
    if method == "HEAD" || head.status < 200 || head.status == 204 || head.status == 304 {
        return Framing::None;
    }
    match (length, coding) {
        (Some(length), _) => Framing::Length(length),
        (None, Some(coding)) => {
            assert!(
                coding.eq_ignore_ascii_case("chunked"),
                "transfer coding {coding:?}"
            );
            assert_eq!(head.version, "HTTP/1.1", "chunked in HTTP/1.0");
            Framing::Chunked
        }
        (None, None) => Framing::UntilClose,
    }
}
