//! ureq's buffers, as our transports have them.

use std::io;

use ureq::unversioned::transport::Buffers;

/// ureq's buffers without its zeroing: pages that are never used cost nothing.
pub(super) struct TransportBuffers {
    input: Vec<u8>,
    /// `input[start..end]` has arrived and is not consumed.
    start: usize,
    end: usize,
    pub(super) output: Vec<u8>,
    progress: bool,
}

impl TransportBuffers {
    pub(super) fn new(input_bytes: usize, output_bytes: usize) -> TransportBuffers {
        TransportBuffers {
            input: vec![0; input_bytes],
            start: 0,
            end: 0,
            output: vec![0; output_bytes],
            progress: false,
        }
    }
}

impl TransportBuffers {
    /// Where received bytes are to be written.
    ///
    /// # Errors
    /// There is no room: the head of an answer does not fit.
    pub(super) fn space(&mut self) -> Result<&mut [u8], ureq::Error> {
        let space = self.input_append_buf();
        if space.is_empty() {
            let what = "the head of the answer is over 16 KiB";
            return Err(ureq::Error::Io(io::Error::other(what)));
        }
        Ok(space)
    }
}

impl Buffers for TransportBuffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start += amount;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.input[self.end..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.progress
    }
}
