//! A request for the upstream, and its head as it is sent.

use std::io::Read;

use http::Method;

/// Enough for what a head has beside its method, target and fields, in bytes.
const FRAMING_BYTES: usize = 128;

/// A request for the upstream.
pub struct Request<'a, F> {
    pub method: &'a Method,
    /// The request target in origin-form: path and query (RFC 9112 section 3.2.1).
    pub target: &'a [u8],
    /// Pieces of complete header lines, without Content-Length and Transfer-Encoding.
    pub fields: F,
    pub body: RequestBody<'a>,
}

/// The body of a request.
pub enum RequestBody<'a> {
    /// No body, and no Content-Length.
    None,
    /// The complete body.
    Buffered(&'a [u8]),
    /// The body comes from a reader.
    Streamed {
        reader: &'a mut dyn Read,
        /// The length in bytes. A body of unknown length is sent in chunks.
        length: Option<u64>,
    },
}

impl<'f, F: Iterator<Item = &'f [u8]> + Clone> Request<'_, F> {
    /// Writes the head to `output`, which is empty (RFC 9112 sections 3 and 6).
    pub(super) fn encode_head(&self, output: &mut Vec<u8>) {
        // All at once: a vector that grows leaves copies of the token behind.
        let fields: usize = self.fields.clone().map(<[u8]>::len).sum();
        let line = self.method.as_str().len() + self.target.len();
        output.reserve(line + fields + FRAMING_BYTES);
        for piece in [self.method.as_str().as_bytes(), b" ", self.target] {
            output.extend_from_slice(piece);
        }
        output.extend_from_slice(b" HTTP/1.1\r\n");
        for piece in self.fields.clone() {
            output.extend_from_slice(piece);
        }
        let length = match &self.body {
            RequestBody::None => None,
            RequestBody::Buffered(bytes) => Some(bytes.len() as u64),
            RequestBody::Streamed { length, .. } => {
                if length.is_none() {
                    output.extend_from_slice(b"transfer-encoding: chunked\r\n");
                }
                *length
            }
        };
        if let Some(length) = length {
            output.extend_from_slice(b"content-length: ");
            output.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            output.extend_from_slice(b"\r\n");
        }
        output.extend_from_slice(b"\r\n");
    }
}
