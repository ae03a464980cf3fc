use std::io::Write;

use super::*;
use crate::logging::tests::TempDir;

/// The size of a full file in bytes.
const FULL: u64 = 100;

/// A rotation of `log` in the directory, and the file that it has open.
fn opened(dir: &TempDir, keep: u32) -> (Rotation, File) {
    let path = dir.file("log");
    let open = {
        let path = path.clone();
        let options = || File::options().append(true).create(true).clone();
        Box::new(move || options().open(&path))
    };
    let limits = Limits {
        max_size: Some(FULL),
        keep,
    };
    let file = open().unwrap();
    let mut rotation = Rotation::new(path, "log".into(), limits, open);
    rotation.note_opened(&file);
    (rotation, file)
}

/// Makes room for a line of 60 bytes and writes it; returns whether it went to another file.
fn write_line(rotation: &mut Rotation, file: &mut File) -> bool {
    let line = [b'x'; 59];
    let line = [&line[..], b"\n"].concat();
    let room = rotation.make_room(file, &line).unwrap();
    assert_eq!(room.length, 60);
    file.write_all(&line).unwrap();
    room.is_new_file
}

#[test]
fn as_many_whole_lines_are_written_as_fit() {
    for (lines, room, expected) in [
        ("ab\ncd\ne\n", 8, 8),
        ("ab\ncd\ne\n", 7, 6),
        ("ab\ncd\ne\n", 6, 6),
        ("ab\ncd\ne\n", 5, 3),
        ("ab\ncd\ne\n", 2, 0),
        ("ab\n", u64::MAX, 3),
        ("ab\n", 0, 0),
    ] {
        assert_eq!(whole_lines(lines.as_bytes(), room), expected, "{room}");
    }
    assert_eq!((first_line(b"ab\ncd\n"), first_line(b"ab")), (3, 2));
}

#[test]
fn a_full_file_is_renamed_once_for_two_that_have_it_open() {
    let dir = TempDir::new("two");
    let (mut first, mut file) = opened(&dir, 7);
    let (mut second, mut same) = opened(&dir, 7);
    assert!(!write_line(&mut first, &mut file));
    assert!(write_line(&mut first, &mut file));
    // The second one has seen the full file before the first one renamed it.
    second.rotate_locked(&mut same, |_| true).unwrap();
    assert_eq!(second.id, first.id);
    assert!(!dir.file("log.2").exists());
    assert_eq!(fs::read(dir.file("log.1")).unwrap().len(), 60);
}

#[test]
fn a_file_that_another_instance_renames_now_takes_lines_until_then() {
    let dir = TempDir::new("locked");
    let (mut rotation, mut file) = opened(&dir, 7);
    write_line(&mut rotation, &mut file);
    let other = File::open(dir.file("log")).unwrap();
    other.lock().unwrap();
    assert!(!write_line(&mut rotation, &mut file));
    assert!(rotation.take_problem().is_none());
    other.unlock().unwrap();
    assert!(write_line(&mut rotation, &mut file));
    assert_eq!(fs::read(dir.file("log.1")).unwrap().len(), 120);
    // The new file is not locked.
    File::open(dir.file("log")).unwrap().try_lock().unwrap();
}

#[test]
fn a_file_that_was_cut_by_others_is_not_full() {
    let dir = TempDir::new("cut");
    let (mut rotation, mut file) = opened(&dir, 7);
    write_line(&mut rotation, &mut file);
    // As logrotate does with copytruncate.
    File::options()
        .write(true)
        .open(dir.file("log"))
        .and_then(|file| file.set_len(0))
        .unwrap();
    assert!(!write_line(&mut rotation, &mut file));
    assert!(!dir.file("log.1").exists());
}

#[test]
fn lines_are_lost_only_with_a_file_that_has_no_name() {
    let dir = TempDir::new("lost");
    let (mut rotation, mut file) = opened(&dir, 7);
    assert!(!rotation.is_lost(&file));
    fs::rename(dir.file("log"), dir.file("old")).unwrap();
    assert!(!rotation.is_lost(&file));
    assert!(!write_line(&mut rotation, &mut file));
    fs::remove_file(dir.file("old")).unwrap();
    assert!(rotation.is_lost(&file));
    assert!(write_line(&mut rotation, &mut file));
    assert!(!rotation.is_lost(&file));
    // Without a directory there is no file, either.
    fs::remove_dir_all(dir.file("")).unwrap();
    assert!(rotation.make_room(&mut file, b"x\n").is_err());
}

#[test]
fn a_failure_is_reported_once_and_tried_again_after_a_pause() {
    let dir = TempDir::new("pause");
    let (mut rotation, mut file) = opened(&dir, 1);
    fs::create_dir(dir.file("log.1")).unwrap();
    write_line(&mut rotation, &mut file);
    let mut problems = Vec::new();
    for _ in 0..3 {
        assert!(!write_line(&mut rotation, &mut file));
        problems.extend(rotation.take_problem());
        fs::remove_dir(dir.file("log.1")).ok();
    }
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("Cannot rotate log file log: "));
    rotation.failed_at = rotation
        .failed_at
        .and_then(|at| at.checked_sub(RETRY_INTERVAL));
    assert!(write_line(&mut rotation, &mut file));
    assert_eq!(fs::read(dir.file("log.1")).unwrap().len(), 240);
}
