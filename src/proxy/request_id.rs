//! The request id, which ties the log lines of client, proxy and upstream together.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

use crate::http1::headers::{HeaderBlock, KnownHeader};

/// A longer id of a client is not returned with a rejection, in bytes: that response is short.
const MAX_REJECTED_ID: usize = 1024;

/// The id of one request.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// The client's, as it was sent.
    Client(Box<[u8]>),
    /// One of our own: hexadecimal digits.
    Own([u8; 16]),
}

impl RequestId {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RequestId::Client(id) => id,
            RequestId::Own(id) => id,
        }
    }

    /// Keeps its first bytes only.
    pub fn cut(&mut self, length: usize) {
        if let RequestId::Client(id) = self
            && id.len() > length
        {
            *id = id[..length].into();
        }
    }
}

/// Makes request ids: unique in this process, and very probably unique beyond it.
#[derive(Debug)]
pub struct RequestIds {
    seed: u64,
    /// The number of the next id.
    next: AtomicU64,
}

impl RequestIds {
    pub fn new() -> RequestIds {
        // The standard library seeds its hash maps from the system's random numbers.
        let seed = RandomState::new().build_hasher().finish();
        RequestIds {
            seed,
            next: AtomicU64::new(0),
        }
    }

    /// The client's own id, else a new one.
    pub fn of_request(&self, fields: &HeaderBlock) -> RequestId {
        let id = fields.value(KnownHeader::XRequestId);
        let id = id.filter(|id| !id.is_empty());
        id.map_or_else(|| self.make(), |id| RequestId::Client(id.into()))
    }

    /// As [`RequestIds::of_request`], of a request whose head may be malformed.
    pub fn of_rejected(&self, id: Option<&[u8]>) -> RequestId {
        let is_usable = |id: &&[u8]| {
            (1..=MAX_REJECTED_ID).contains(&id.len()) && HeaderValue::from_bytes(id).is_ok()
        };
        let id = id.filter(is_usable);
        id.map_or_else(|| self.make(), |id| RequestId::Client(id.into()))
    }

    fn make(&self) -> RequestId {
        // An odd factor: a bijection, so that no two numbers give the same id.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = number.wrapping_mul(SPREAD) ^ self.seed;
        let mut digits = [0; 16];
        for (index, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(id >> (60 - 4 * index) & 15) as usize];
        }
        RequestId::Own(digits)
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        RequestIds::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_different() {
        let ids = RequestIds::new();
        let some: std::collections::HashSet<_> =
            (0..4096).map(|_| ids.make().as_bytes().to_vec()).collect();
        assert_eq!(some.len(), 4096);
    }
}
