//! A place that lines are written to: a bounded queue, and the thread that empties it.
//!
//! Owns waiting, dropping and recovering. Loggers only append to the queue. The writer writes
//! the first line after a pause at once and then gathers for [`GATHER`] what comes next, so
//! that a busy proxy costs a system call for each millisecond instead of each line, and a
//! logger wakes the writer only after a pause.
//!
//! A sink that is stuck fills its queue, then loses lines; one that fails loses lines at once
//! and is tried again with later ones. Either way the loss is counted and told.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};

use super::line;

/// How much of the log may wait for a sink: a good 20,000 access lines, some 0.4 s of the
/// heaviest load. A stuck sink holds twice as much, since its writer has a queue in hand.
const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;

/// What a queue keeps of its memory once it is written.
const KEPT_PENDING_BYTES: usize = 64 * 1024;

/// How far a sink may be behind while it works.
const GATHER: Duration = Duration::from_millis(1);

/// The writers call nothing deep.
const STACK_BYTES: usize = 128 * 1024;

/// The queue of a sink.
pub(super) struct Sink {
    /// What messages call it.
    name: String,
    /// Held for a copy of one line, and never while anything is written.
    queue: Mutex<Queue>,
    /// Told when `queue` gets something to do for a writer that sleeps.
    wake: Condvar,
    /// Told when `Queue::written` has grown.
    progress: Condvar,
}

struct Queue {
    /// Whole lines only.
    pending: Vec<u8>,
    /// Lines that found the queue full since the writer last looked.
    dropped: u64,
    /// Lines that were ever queued.
    queued: u64,
    /// Lines that are done with: written, or lost by a sink that fails.
    written: u64,
    writer: WriterState,
    target: Target,
}

#[derive(PartialEq, Eq)]
enum WriterState {
    /// Will look at the queue by itself.
    Awake,
    /// Must be woken.
    Asleep,
}

enum Target {
    /// There is none: lines are not queued.
    Missing,
    /// The writer has it.
    Open,
    /// The writer is to take this one from now on.
    Next(File),
}

impl Sink {
    pub(super) fn new(name: String, has_target: bool) -> Self {
        let queue = Queue {
            pending: Vec::new(),
            dropped: 0,
            queued: 0,
            written: 0,
            writer: WriterState::Awake,
            target: if has_target {
                Target::Open
            } else {
                Target::Missing
            },
        };
        Self {
            name,
            queue: queue.into(),
            wake: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    /// Queues one line, given in parts, or drops and counts it if the queue is full.
    pub(super) fn push(&self, line: &[&[u8]]) {
        let mut queue = self.lock();
        if matches!(queue.target, Target::Missing) {
            return;
        }
        let length: usize = line.iter().map(|part| part.len()).sum();
        if queue.pending.len() + length > MAX_PENDING_BYTES {
            queue.dropped += 1;
            return;
        }
        for part in line {
            queue.pending.extend_from_slice(part);
        }
        queue.queued += 1;
        self.wake_writer(queue);
    }

    /// Lets the writer go on with another file.
    pub(super) fn switch_to(&self, file: File) {
        let mut queue = self.lock();
        queue.target = Target::Next(file);
        self.wake_writer(queue);
    }

    /// Waits until all lines that are queued now are done with, or until `deadline`.
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
        line::format(level, message, |line| self.push(&[line.whole()]));
    }

    /// Sleeps until there is something to do and swaps what is to be written, maybe nothing, for
    /// the empty `lines`. Also a new target if there is one, which lets the writer close the old
    /// one at once, and the number of lines that were ever queued.
    fn take(&self, lines: &mut Vec<u8>) -> (Option<File>, u64) {
        let mut queue = self.lock();
        let mut next = None;
        loop {
            if matches!(queue.target, Target::Next(_))
                && let Target::Next(file) = std::mem::replace(&mut queue.target, Target::Open)
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
            // Here, since this is where they are missing.
            let message = format_args!(
                "The log to {} was stuck: {dropped} lines were lost",
                self.name
            );
            line::format(Level::Warn, &message, |line| {
                lines.extend_from_slice(line.whole())
            });
        }
        (next, queued)
    }

    fn finish(&self, written: u64) {
        self.lock().written = written;
        self.progress.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that holds it can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that writes what is queued in `sink` to `target`, for the life of the
/// process. What befalls the sink is told in `other`.
pub(super) fn start_writer(
    thread: &str,
    target: Option<File>,
    sink: &Arc<Sink>,
    other: &Arc<Sink>,
) -> io::Result<()> {
    let mut writer = Writer {
        sink: Arc::clone(sink),
        other: Arc::clone(other),
        target,
        end: LineEnd::Complete,
        health: Health::Works,
    };
    let builder = thread::Builder::new()
        .name(thread.into())
        .stack_size(STACK_BYTES);
    builder.spawn(move || writer.run()).map(drop)
}

struct Writer {
    sink: Arc<Sink>,
    other: Arc<Sink>,
    target: Option<File>,
    end: LineEnd,
    health: Health,
}

/// How the sink's last write left it.
#[derive(Debug, PartialEq, Eq)]
enum LineEnd {
    Complete,
    /// In the middle of a line, whose rest is lost.
    Torn,
}

enum Health {
    Works,
    /// Since the last write that worked, so many lines were lost.
    Fails {
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
                self.target = Some(file);
                self.end = LineEnd::Complete;
            }
            if let Some(target) = &mut self.target
                && !lines.is_empty()
            {
                let result = write_lines(target, &lines, &mut self.end);
                self.note(result);
            }
            lines.clear();
            lines.shrink_to(KEPT_PENDING_BYTES);
            self.sink.finish(queued);
            thread::sleep(GATHER);
        }
    }

    /// Tells when the sink begins to fail and when it works again, each once. As the log itself
    /// is concerned, it is told at every log level.
    fn note(&mut self, result: Result<(), Failure>) {
        let name = &self.sink.name;
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

/// Lines that could not be written.
#[derive(Debug)]
struct Failure {
    lost: u64,
    error: io::Error,
}

/// Writes whole lines, waiting for a target that is full for the moment (a pipe). After a torn
/// line it begins a new one first.
fn write_lines<W: Write + AsFd>(
    target: &mut W,
    lines: &[u8],
    end: &mut LineEnd,
) -> Result<(), Failure> {
    let mut rest = lines;
    loop {
        let repair = *end == LineEnd::Torn;
        let result = if repair {
            target.write(b"\n")
        } else if rest.is_empty() {
            return Ok(());
        } else {
            target.write(rest)
        };
        let error = match result {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(_) if repair => {
                *end = LineEnd::Complete;
                continue;
            }
            Ok(written) => {
                rest = &rest[written..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Somebody set the descriptor to non-blocking. An error here shows in the write.
                let _ = poll(&mut [PollFd::new(target, PollFlags::OUT)], None);
                continue;
            }
            Err(error) => error,
        };
        let written = &lines[..lines.len() - rest.len()];
        if written.last().is_some_and(|&last| last != b'\n') {
            *end = LineEnd::Torn;
        }
        let lost = rest.iter().filter(|&&byte| byte == b'\n').count() as u64;
        return Err(Failure { lost, error });
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        room: usize,
        contents: Vec<u8>,
        fd: File,
    }

    impl Disk {
        fn new(room: usize) -> Self {
            Self {
                room,
                contents: Vec::new(),
                fd: File::open("/dev/null").unwrap(),
            }
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.contents.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for Disk {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }

    #[test]
    fn a_line_torn_by_a_full_disk_does_not_glue_to_the_next() {
        let mut disk = Disk::new(9);
        let mut end = LineEnd::Complete;
        let failure = write_lines(&mut disk, b"first\nsecond\nthird\n", &mut end).unwrap_err();
        assert_eq!(failure.lost, 2);
        assert_eq!(failure.error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(
            write_lines(&mut disk, b"lost\n", &mut end)
                .unwrap_err()
                .lost,
            1
        );
        disk.room = 100;
        write_lines(&mut disk, b"fourth\n", &mut end).unwrap();
        assert_eq!(disk.contents, b"first\nsec\nfourth\n");
    }

    #[test]
    fn a_write_that_fails_between_lines_leaves_no_empty_line() {
        let mut disk = Disk::new(6);
        let mut end = LineEnd::Complete;
        assert_eq!(
            write_lines(&mut disk, b"first\nlost\n", &mut end)
                .unwrap_err()
                .lost,
            1
        );
        disk.room = 100;
        write_lines(&mut disk, b"third\n", &mut end).unwrap();
        assert_eq!(disk.contents, b"first\nthird\n");
    }

    #[test]
    fn a_full_queue_drops_whole_lines_and_tells_how_many() {
        let sink = Sink::new("stderr".into(), true);
        let line = [b'x'; 1024];
        for _ in 0..MAX_PENDING_BYTES / 1024 + 3 {
            sink.push(&[&line[1..], b"\n"]);
        }
        let mut lines = Vec::new();
        sink.take(&mut lines);
        assert_eq!(lines[MAX_PENDING_BYTES - 1], b'\n');
        let notice = String::from_utf8(lines[MAX_PENDING_BYTES..].to_vec()).unwrap();
        assert!(notice.ends_with(" - WARNING - The log to stderr was stuck: 3 lines were lost\n"));

        sink.push(&[b"next\n"]);
        lines.clear();
        sink.take(&mut lines);
        assert_eq!(lines, b"next\n");
    }

    #[test]
    fn a_sink_without_a_target_queues_nothing() {
        let sink = Sink::new("log file".into(), false);
        sink.push(&[b"line\n"]);
        assert!(sink.lock().pending.is_empty());
    }
}
