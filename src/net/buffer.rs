//! Received bytes that are not yet used. No I/O.
//!
//! The storage belongs to the thread, which lends it to the connection that it serves. A connection
//! that waits keeps only the bytes themselves, so that idle connections take little memory.

/// The storage that a thread lends, in bytes. It grows for a longer head. Also the largest piece of a
/// chunked body.
pub(crate) const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Received bytes that are not yet used.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    /// `start..end` is received and not yet used; the rest is initialised, without meaning.
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// Drops the first `length` bytes: they have been used.
    pub(crate) fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.data.len() > READ_BUFFER_BYTES {
                // A long head has made it grow.
                self.data = Vec::new();
            }
        }
    }

    /// Returns the space for the next bytes; never empty. It grows only after bytes have filled it, so
    /// the limit on heads bounds it.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.data.is_empty() {
            self.data = zeroed(READ_BUFFER_BYTES);
        } else if self.end == self.data.len() {
            self.data
                .resize((self.data.len() * 2).max(READ_BUFFER_BYTES), 0);
        }
        &mut self.data[self.end..]
    }

    /// Adds the first `length` bytes of [`ReadBuffer::space`] to the received ones.
    pub(crate) fn filled(&mut self, length: usize) {
        self.end += length;
    }

    /// Takes the thread's storage for the time in which the connection is served.
    pub(crate) fn borrow_storage(&mut self, spare: &mut Vec<u8>) {
        if self.data.len() < READ_BUFFER_BYTES && spare.len() == READ_BUFFER_BYTES {
            let length = self.bytes().len();
            spare[..length].copy_from_slice(self.bytes());
            self.data = std::mem::take(spare);
            self.start = 0;
            self.end = length;
        }
    }

    /// Gives the storage back and keeps a copy of the received bytes, exactly as large as they are.
    pub(crate) fn return_storage(&mut self, spare: &mut Vec<u8>) {
        let unused = self.bytes().to_vec();
        let data = std::mem::take(&mut self.data);
        if data.len() == READ_BUFFER_BYTES {
            *spare = data;
        }
        self.start = 0;
        self.end = unused.len();
        self.data = unused;
    }
}

/// Allocates memory that the system zeroes when it is first touched. Not inlined: a compiler that sees
/// the use may write the zeros itself.
#[inline(never)]
fn zeroed(bytes: usize) -> Vec<u8> {
    vec![0; bytes]
}
