//! The body of an error response, read before its head goes to the client, so far as a verdict needs it.

use std::time::{Duration, Instant};

use crate::http1::headers::HeaderBlock;
use crate::net::wait::CallContext;
use crate::proxy::balancer::verdict::ErrorObject;
use crate::proxy::unpack::Unpacker;
use crate::upstream::connection::UpstreamConnection;
use crate::upstream::connection::open::BodyRead;

/// The most of a body that is read, in bytes.
pub const MAX_BODY: usize = 16 * 1024;
/// How long the body is waited for.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The most of a rejected response's body that is read so that its connection can be reused, in bytes.
const MAX_SKIPPED_BODY: usize = 64 * 1024;

/// The beginning of a body, as it goes to the client.
#[derive(Debug, Default)]
pub struct ErrorBody {
    pub bytes: Vec<u8>,
    /// Nothing follows.
    pub is_whole: bool,
}

/// Reads the beginning of the body that follows on `connection`. An error comes again when the rest is
/// read.
pub fn read(connection: &mut UpstreamConnection, call: CallContext<'_>) -> ErrorBody {
    let deadline = Instant::now() + MAX_WAIT;
    let mut body = ErrorBody {
        bytes: vec![0; MAX_BODY],
        is_whole: false,
    };
    let mut filled = 0;
    loop {
        match connection.read_until(&mut body.bytes[filled..], deadline, call) {
            Ok(BodyRead::Data(length)) => filled += length,
            Ok(BodyRead::End) => body.is_whole = true,
            Ok(BodyRead::NotYet) | Err(_) => break,
        }
        if body.is_whole || filled == MAX_BODY || Instant::now() >= deadline {
            break;
        }
    }
    body.bytes.truncate(filled);
    body.bytes.shrink_to_fit();
    body
}

/// Reads what is left of a response that is not passed on, if it is short and has arrived, so that its
/// connection can be reused. Apart from its caller, whose stack frame lasts as long as a response.
#[inline(never)]
pub fn skip_rest(connection: &mut UpstreamConnection, call: CallContext<'_>) {
    let mut scratch = [0; 4096];
    let mut skipped = 0;
    while skipped <= MAX_SKIPPED_BODY {
        match connection.try_read(&mut scratch, call) {
            Ok(BodyRead::Data(length)) => skipped += length,
            Ok(BodyRead::NotYet | BodyRead::End) | Err(_) => return,
        }
    }
}

impl ErrorBody {
    /// The error object in it; an empty one where it is not whole, or no JSON object.
    pub fn error(&self, fields: &HeaderBlock) -> ErrorObject {
        let object = || {
            let text = self.is_whole.then(|| self.unpacked(fields)).flatten()?;
            let body: serde_json::Value = serde_json::from_slice(&text).ok()?;
            let error = body.get("error")?.as_object()?;
            let text = |name: &str| {
                let text = error.get(name).and_then(|value| value.as_str());
                text.unwrap_or_default().to_owned()
            };
            Some(ErrorObject {
                kind: text("type"),
                message: text("message"),
                param: text("param"),
            })
        };
        object().unwrap_or_default()
    }

    /// The body without its content coding; `None`: it has one that cannot be read.
    fn unpacked(&self, fields: &HeaderBlock) -> Option<Vec<u8>> {
        if fields.is_uncompressed() {
            return Some(self.bytes.clone());
        }
        let mut unpacker = Unpacker::new(fields)?;
        let unpacked = unpacker.feed(&self.bytes);
        unpacker.is_whole().then_some(unpacked)
    }
}
