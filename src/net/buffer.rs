//! What a client has sent and nobody has used yet. The buffer is the thread's, lent to a connection
//! while it is served; one that waits keeps only what it has received. No I/O.

/// Room for received bytes; grows while a head is longer. Also the largest piece of a chunked body.
pub(crate) const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Received bytes that are not yet used.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    /// All initialised; `start..end` is received and not used.
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Moves bytes to `buffer`, as many as there are and fit.
    pub(crate) fn take_into(&mut self, buffer: &mut [u8]) -> usize {
        let length = self.bytes().len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.bytes()[..length]);
        self.consume(length);
        length
    }

    /// Where received bytes are to be written; never empty. Grows only as far as bytes arrive, and
    /// the limit on heads bounds that.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.data.is_empty() {
            self.data = untouched(READ_BUFFER_BYTES);
        } else if self.end == self.data.len() {
            self.data
                .resize((self.data.len() * 2).max(READ_BUFFER_BYTES), 0);
        }
        &mut self.data[self.end..]
    }

    pub(crate) fn filled(&mut self, length: usize) {
        self.end += length;
    }

    /// Takes the worker's buffer for as long as the connection is served.
    pub(crate) fn borrow_storage(&mut self, spare: &mut Vec<u8>) {
        if self.data.len() < READ_BUFFER_BYTES && spare.len() == READ_BUFFER_BYTES {
            let length = self.bytes().len();
            spare[..length].copy_from_slice(self.bytes());
            self.data = std::mem::take(spare);
            self.start = 0;
            self.end = length;
        }
    }

    /// Gives the buffer back; a connection that waits keeps only what it has received.
    pub(crate) fn return_storage(&mut self, spare: &mut Vec<u8>) {
        let rest = self.bytes().to_vec();
        let data = std::mem::take(&mut self.data);
        if data.len() == READ_BUFFER_BYTES {
            *spare = data;
        }
        self.start = 0;
        self.end = rest.len();
        self.data = rest;
    }
}

/// Zeroed by the allocator, as a rule without touching a page. Apart, since a compiler that sees more
/// of it may write the zeros itself.
#[inline(never)]
fn untouched(bytes: usize) -> Vec<u8> {
    vec![0; bytes]
}
