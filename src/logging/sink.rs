//! A sink: a bounded queue of lines, and the thread that writes them to a destination.
//!
//! Owns waiting, dropping and recovering. Any thread that logs appends to the queue and never waits
//! for the destination. The writer thread writes the first line after a pause at once, then collects
//! lines for [`GATHER_INTERVAL`] before it writes again: a busy proxy costs one system call per
//! millisecond instead of one per line, and wakes the writer only after a pause.
//!
//! While a destination blocks, the queue fills up and further lines are lost. While it fails, lines are
//! lost at once, and later ones are tried again. Lost lines are counted and reported in the log.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::Level;

use super::line::{self, Line, NO_FIELDS};
use super::rotation::Rotation;
use super::write::{Failure, LineEnd, line_count, write_lines};
use crate::config::options::LogFormat;

/// The maximum size of a queue in bytes: some 20,000 access lines, about 0.4 s of the heaviest load.
/// A blocked sink holds twice as much, because its writer has taken a full queue already.
const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;

/// The memory that an empty queue keeps, in bytes.
const KEPT_PENDING_BYTES: usize = 64 * 1024;

/// How long the writer collects lines between two writes.
const GATHER_INTERVAL: Duration = Duration::from_millis(1);

/// The stack of a writer thread in bytes: it calls nothing deep.
const STACK_BYTES: usize = 128 * 1024;

/// The queue of one destination, shared by the threads that log and the writer thread.
pub(super) struct Sink {
    /// What messages call the destination.
    name: String,
    /// Of the lines about the log itself; others are pushed as they are.
    format: LogFormat,
    /// Locked while a line is copied, never while anything is written to the destination.
    queue: Mutex<Queue>,
    /// Notified when a sleeping writer has something to do.
    wake: Condvar,
    /// Notified when `Queue::written` has grown.
    progress: Condvar,
}

struct Queue {
    /// Whole lines only.
    pending: Vec<u8>,
    /// Lines that found the queue full since the writer last took it.
    dropped: u64,
    /// All lines that were ever queued.
    queued: u64,
    /// How many of them are done: written, or lost because the destination failed.
    written: u64,
    writer: WriterState,
    destination: Destination,
}

#[derive(PartialEq, Eq)]
enum WriterState {
    /// Looks at the queue before it sleeps.
    Awake,
    /// Must be woken.
    Asleep,
}

/// Where the writer writes to.
enum Destination {
    /// Nowhere: lines are not queued.
    Missing,
    /// The file that the writer has.
    Open,
    /// This file, as soon as the writer has taken it.
    Next(File),
}

/// Lines that any sink has lost since the process started.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines were lost since the process started.
pub fn lines_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

impl Sink {
    pub(super) fn new(name: String, format: LogFormat, has_destination: bool) -> Self {
        let queue = Queue {
            pending: Vec::new(),
            dropped: 0,
            queued: 0,
            written: 0,
            writer: WriterState::Awake,
            destination: if has_destination {
                Destination::Open
            } else {
                Destination::Missing
            },
        };
        Self {
            name,
            format,
            queue: queue.into(),
            wake: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    /// Queues one line, which is given in parts. A full queue drops and counts it.
    pub(super) fn push(&self, line: &[&[u8]]) {
        let mut queue = self.lock();
        if matches!(queue.destination, Destination::Missing) {
            return;
        }
        let length: usize = line.iter().map(|part| part.len()).sum();
        if queue.pending.len() + length > MAX_PENDING_BYTES {
            queue.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        for part in line {
            queue.pending.extend_from_slice(part);
        }
        queue.queued += 1;
        self.wake_writer(queue);
    }

    /// Makes the writer write to another file from now on.
    pub(super) fn switch_to(&self, file: File) {
        let mut queue = self.lock();
        queue.destination = Destination::Next(file);
        self.wake_writer(queue);
    }

    /// Waits until all lines that are queued now are done, or until `deadline`.
    pub(super) fn wait_until_written(&self, deadline: Instant) {
        let queue = self.lock();
        let goal = queue.queued;
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .progress
            .wait_timeout_while(queue, left, |queue| queue.written < goal);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn wake_writer(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.writer == WriterState::Asleep {
            queue.writer = WriterState::Awake;
            drop(queue);
            self.wake.notify_one();
        }
    }

    fn push_message(&self, level: Level, message: &std::fmt::Arguments<'_>) {
        let push = |line: Line<'_>| self.push(&[line.plain()]);
        line::format(self.format, level, message, &NO_FIELDS, push);
    }

    /// Waits until there are lines or a new file. Swaps the queued lines, which may be none, for the
    /// empty `lines`. Returns the new file, so that the writer closes the old one at once, and the
    /// number of lines that were ever queued.
    fn take(&self, lines: &mut Vec<u8>) -> (Option<File>, u64) {
        let mut queue = self.lock();
        let mut next = None;
        loop {
            if matches!(queue.destination, Destination::Next(_))
                && let Destination::Next(file) =
                    std::mem::replace(&mut queue.destination, Destination::Open)
            {
                next = Some(file);
            }
            if !queue.pending.is_empty() || next.is_some() {
                break;
            }
            queue.writer = WriterState::Asleep;
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.writer = WriterState::Awake;
        }
        std::mem::swap(&mut queue.pending, lines);
        let dropped = std::mem::take(&mut queue.dropped);
        let queued = queue.queued;
        drop(queue);
        if dropped > 0 {
            // At this place of the log, because this is where the lines are missing.
            let message = format_args!(
                "The log to {} was stuck: {dropped} lines were lost",
                self.name
            );
            let append = |line: Line<'_>| lines.extend_from_slice(line.plain());
            line::format(self.format, Level::Warn, &message, &NO_FIELDS, append);
        }
        (next, queued)
    }

    fn finish(&self, written: u64) {
        self.lock().written = written;
        self.progress.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic cannot leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that writes the lines of `sink` to `destination` until the process ends.
/// Failures of the destination are reported through `other`.
pub(super) fn start_writer(
    thread: &str,
    destination: Option<File>,
    rotation: Option<Rotation>,
    sink: &Arc<Sink>,
    other: &Arc<Sink>,
) -> io::Result<()> {
    let mut writer = Writer {
        sink: Arc::clone(sink),
        other: Arc::clone(other),
        destination: None,
        rotation,
        end: LineEnd::Complete,
        health: Health::Works,
    };
    if let Some(file) = destination {
        writer.switch_to(file);
    }
    let builder = thread::Builder::new()
        .name(thread.into())
        .stack_size(STACK_BYTES);
    builder.spawn(move || writer.run()).map(drop)
}

struct Writer {
    sink: Arc<Sink>,
    other: Arc<Sink>,
    destination: Option<File>,
    /// Of a log file; stderr has none.
    rotation: Option<Rotation>,
    end: LineEnd,
    health: Health,
}

enum Health {
    Works,
    Fails {
        /// The lines that were lost since the last write that worked.
        lost: u64,
    },
}

impl Writer {
    /// The main loop of a writer thread.
    fn run(&mut self) {
        let mut lines = Vec::new();
        loop {
            let (next, queued) = self.sink.take(&mut lines);
            if let Some(file) = next {
                self.switch_to(file);
            }
            if !lines.is_empty() {
                let result = self.write(&lines);
                self.note_health(result);
            }
            lines.clear();
            lines.shrink_to(KEPT_PENDING_BYTES);
            self.sink.finish(queued);
            thread::sleep(GATHER_INTERVAL);
        }
    }

    fn switch_to(&mut self, file: File) {
        if let Some(rotation) = &mut self.rotation {
            rotation.note_opened(&file);
        }
        self.destination = Some(file);
        self.end = LineEnd::Complete;
    }

    /// Writes lines, in pieces where the file becomes full between them.
    fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let Some(file) = &mut self.destination else {
            return Ok(());
        };
        let Some(rotation) = &mut self.rotation else {
            return write_lines(file, lines, &mut self.end);
        };
        let mut rest = lines;
        let mut is_repeated = false;
        while !rest.is_empty() {
            let room = rotation.make_room(file, rest);
            if let Some(problem) = rotation.take_problem() {
                for sink in [&self.sink, &self.other] {
                    sink.push_message(Level::Error, &format_args!("{problem}"));
                }
            }
            let room = room.map_err(|error| Failure::new(rest, error))?;
            if room.is_new_file {
                self.end = LineEnd::Complete;
            }
            let (piece, later) = rest.split_at(room.length);
            write_lines(file, piece, &mut self.end).map_err(|failure| Failure {
                lost: failure.lost + line_count(later),
                ..failure
            })?;
            // Once more where the file was removed meanwhile, but once only.
            is_repeated = !is_repeated && rotation.is_lost(file);
            if !is_repeated {
                rest = later;
            }
        }
        Ok(())
    }

    /// Reports once when the destination begins to fail and once when it works again; at every log
    /// level, because the log itself is concerned.
    fn note_health(&mut self, result: Result<(), Failure>) {
        let name = &self.sink.name;
        if let Err(failure) = &result {
            DROPPED.fetch_add(failure.lost, Ordering::Relaxed);
        }
        match (result, &mut self.health) {
            (Ok(()), Health::Works) => {}
            (Err(failure), Health::Fails { lost }) => *lost += failure.lost,
            (Err(failure), Health::Works) => {
                self.health = Health::Fails { lost: failure.lost };
                let error = failure.error;
                self.other.push_message(
                    Level::Error,
                    &format_args!(
                        "Cannot write to {name}: {error}; its lines are lost until it works again"
                    ),
                );
            }
            (Ok(()), Health::Fails { lost }) => {
                let lost = *lost;
                self.health = Health::Works;
                for sink in [&self.sink, &self.other] {
                    sink.push_message(
                        Level::Warn,
                        &format_args!("Writing to {name} works again; {lost} lines were lost"),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
