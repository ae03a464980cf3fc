use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use super::*;

/// A disk that becomes full.
struct Disk {
    /// In bytes.
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
fn a_full_queue_drops_whole_lines_and_reports_how_many() {
    let sink = Sink::new("stderr".into(), LogFormat::Text, true);
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
fn a_sink_without_a_destination_queues_nothing() {
    let sink = Sink::new("log file".into(), LogFormat::Text, false);
    sink.push(&[b"line\n"]);
    assert!(sink.lock().pending.is_empty());
}
