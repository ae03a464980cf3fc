//! The input and output buffers of a connection. No I/O.

use std::io;

use ureq::unversioned::transport::Buffers;

/// The most bytes of a response's head.
const MAX_INPUT: usize = 64 * 1024;

/// ureq's buffers, without its explicit zeroing: pages that are never used take no memory.
pub(super) struct TransportBuffers {
    input: Vec<u8>,
    /// The size to which `input` returns once it is empty, in bytes.
    usual_input: usize,
    /// `input[start..end]` is received and not yet consumed.
    start: usize,
    end: usize,
    pub(super) output: Vec<u8>,
    /// Whether the last [`Buffers::input_consume`] consumed anything.
    progress: bool,
}

impl TransportBuffers {
    /// Returns empty buffers with these sizes in bytes.
    pub(super) fn new(input_bytes: usize, output_bytes: usize) -> TransportBuffers {
        TransportBuffers {
            input: vec![0; input_bytes],
            usual_input: input_bytes,
            start: 0,
            end: 0,
            output: vec![0; output_bytes],
            progress: false,
        }
    }

    /// Returns the space for received bytes, which is not empty. A head that is longer than usual makes
    /// the buffer grow.
    ///
    /// # Errors
    /// The buffer is full: the head of a response is too long.
    pub(super) fn space(&mut self) -> Result<&mut [u8], ureq::Error> {
        if self.end - self.start == self.input.len() {
            if self.input.len() >= MAX_INPUT {
                let message = "the head of the response is over 64 KiB";
                return Err(ureq::Error::Io(io::Error::other(message)));
            }
            self.input.resize(2 * self.input.len(), 0);
        }
        Ok(self.input_append_buf())
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
            if self.input.len() > self.usual_input {
                self.input = vec![0; self.usual_input];
            }
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.input[self.end..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.progress
    }
}
