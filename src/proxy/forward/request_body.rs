//! The request's body on its way to the upstream: held, so that the request can be repeated, or streamed.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http1::body::BodyLength;
use crate::server::{ClientError, Exchange};

/// Bodies up to this size are held, in bytes: images and long histories fit.
const MAX_HELD: usize = 32 << 20;
/// All held bodies together, in bytes, where the memory is not limited more.
const MAX_HELD_TOGETHER: usize = 64 << 20;
/// The part of the memory limit that held bodies may take.
const MEMORY_SHARE: usize = 4;
/// What a buffer grows by at first, in bytes, where no length is declared; then it doubles, up to
/// [`LAST_STEP`].
const FIRST_STEP: usize = 16 * 1024;
/// What a buffer grows by at most, in bytes, so that a body takes hardly more memory than it has bytes.
const LAST_STEP: usize = 4 << 20;
/// A buffer up to this size is kept for the next request, in bytes.
const KEPT: usize = 64 * 1024;

/// How many bytes all requests in flight may hold. One for the process.
#[derive(Debug)]
pub struct HeldBytes {
    limit: usize,
    used: AtomicUsize,
}

impl HeldBytes {
    pub fn new() -> Arc<HeldBytes> {
        let limit = cgroup_memory_limit().map_or(MAX_HELD_TOGETHER, |memory| {
            MAX_HELD_TOGETHER.min(memory / MEMORY_SHARE)
        });
        Arc::new(HeldBytes {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    fn reserve(&self, bytes: usize) -> bool {
        let step = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.used.fetch_update(set, fetch, step).is_ok()
    }
}

/// The buffer of a held body, which counts as used as long as it holds one.
#[derive(Debug)]
pub struct BodyBuffer {
    bytes: Vec<u8>,
    reserved: usize,
    held: Arc<HeldBytes>,
}

impl BodyBuffer {
    pub fn new(held: &Arc<HeldBytes>) -> BodyBuffer {
        BodyBuffer {
            bytes: Vec::new(),
            reserved: 0,
            held: Arc::clone(held),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the body. A large buffer is given back.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        if self.reserved > 0 {
            self.held.used.fetch_sub(self.reserved, Ordering::Relaxed);
            self.reserved = 0;
        }
    }

    /// Makes room for `step` more bytes behind the `filled` ones. False: too much is held already.
    fn grow(&mut self, filled: usize, step: usize) -> bool {
        if filled + step > KEPT {
            let more = (filled + step).saturating_sub(self.reserved);
            if !self.held.reserve(more) {
                return false;
            }
            self.reserved += more;
        }
        self.bytes.reserve_exact(filled + step - self.bytes.len());
        self.bytes.resize(filled + step, 0);
        true
    }
}

impl Drop for BodyBuffer {
    fn drop(&mut self) {
        self.held.used.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

/// What was read before the request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    /// All of it is in the buffer.
    Held,
    /// The rest of it is still to come; its length where it was declared.
    Streamed(Option<u64>),
}

/// Reads the body into `buffer`, as far as it can be held.
///
/// # Errors
/// The client leaves, or its body is malformed, too slow or too large.
pub fn read_body(
    exchange: &mut Exchange<'_>,
    buffer: &mut BodyBuffer,
) -> Result<Body, ClientError> {
    buffer.clear();
    let mut declared = None;
    match exchange.head.body_length {
        BodyLength::None => return Ok(Body::None),
        BodyLength::Known(length) if length > MAX_HELD as u64 => {
            exchange.admit_body()?;
            return Ok(Body::Streamed(Some(length)));
        }
        // It bounds what is allocated, but is not the reason for allocating it.
        BodyLength::Known(length) => declared = Some(length),
        BodyLength::Chunked | BodyLength::UntilClose => {}
    }
    let most = declared.map_or(MAX_HELD + 1, |length| length as usize);
    // As much as is kept anyway, where so much is to come: fewer and larger reads.
    let first_step = declared.map_or(FIRST_STEP, |_| KEPT);
    let mut filled = 0;
    let body = loop {
        if filled == buffer.bytes.len() {
            let left = most.saturating_sub(filled).max(1);
            let step = filled.clamp(first_step, LAST_STEP).min(left);
            if !buffer.grow(filled, step) {
                break Body::Streamed(declared);
            }
        }
        match exchange.read_body(&mut buffer.bytes[filled..])? {
            0 => break Body::Held,
            length => filled += length,
        }
        if filled > MAX_HELD {
            break Body::Streamed(declared);
        }
    };
    buffer.bytes.truncate(filled);
    Ok(body)
}

/// The memory that the control groups of this process allow, in bytes; `None`: there is no limit, or it
/// is not known. Of nested groups the smallest limit counts.
fn cgroup_memory_limit() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_group = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            // Version 2 has one hierarchy, without names.
            "" => Some(("/sys/fs/cgroup", "memory.max", path.to_owned())),
            "memory" => Some((
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                path.to_owned(),
            )),
            _ => None,
        }
    };
    let limits = groups
        .lines()
        .filter_map(of_group)
        .flat_map(|(root, file, path)| {
            let path = path.trim_matches('/').to_owned();
            let groups: Vec<_> = Path::new(&path)
                .ancestors()
                .map(|group| Path::new(root).join(group).join(file))
                .collect();
            groups
        });
    let limits = limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.min()
}
