//! The ceiling of a thread-for-each-connection proxy: a relay that blocks on one side, then on the
//! other, and looks at nothing but where an answer ends. Runs in a process of its own (`roles`).
//!
//! With looks it yields the processor and looks so many times before it blocks: what that brings
//! differs from machine to machine, and is the ceiling of what it can bring to a proxy.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::http;

const BUFFER_BYTES: usize = 64 << 10;
const STACK_BYTES: usize = 256 << 10;

/// Serves `listener` until the process ends.
pub fn serve(listener: &TcpListener, upstream: SocketAddr, looks: u32) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept()?;
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            // A connection that fails ends: nobody waits for the reason.
            .spawn(move || drop(relay(client, upstream, looks)))?;
    }
}

fn relay(mut client: TcpStream, upstream: SocketAddr, looks: u32) -> io::Result<()> {
    let mut upstream = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // A request fits in one read: the load client writes it in one piece.
        let count = read(&mut client, &mut buffer, looks)?;
        if count == 0 {
            return Ok(());
        }
        upstream.write_all(&buffer[..count])?;
        relay_answer(&mut client, &mut upstream, &mut buffer, looks)?;
    }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8], looks: u32) -> io::Result<usize> {
    for _ in 0..looks {
        thread::yield_now();
        match recv(&*stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, count)) => return Ok(count),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    stream.read(buffer)
}

fn relay_answer(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    buffer: &mut [u8],
    looks: u32,
) -> io::Result<()> {
    let count = read(upstream, buffer, looks)?;
    let first = &buffer[..count];
    let end = http::head_end(first).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut left = http::content_length(&first[..end]).map(|length| end + length - count);
    let mut ended = left.is_none() && first.ends_with(b"0\r\n\r\n");
    client.write_all(first)?;
    while left != Some(0) && !ended {
        let count = upstream.read(buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        client.write_all(&buffer[..count])?;
        match &mut left {
            Some(left) => *left -= count,
            None => ended = buffer[..count].ends_with(b"0\r\n\r\n"),
        }
    }
    Ok(())
}
