//! The upper bound of a proxy with one thread per connection: a relay that blocks on the client, then
//! on the upstream, and parses only where a response ends. Runs in its own process (`roles`).
//!
//! With `spins` it first yields the processor and tries to read that many times, then blocks. The gain
//! depends on the machine; it is the upper bound of what spinning can give a proxy.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::http;

const BUFFER_BYTES: usize = 64 << 10;
const STACK_BYTES: usize = 256 << 10;

/// Serves `listener` until the process ends.
pub fn serve(listener: &TcpListener, upstream: SocketAddr, spins: u32) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept()?;
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            // A failed connection is dropped; the load client counts it.
            .spawn(move || drop(relay(client, upstream, spins)))?;
    }
}

fn relay(mut client: TcpStream, upstream: SocketAddr, spins: u32) -> io::Result<()> {
    let mut upstream = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // One read holds a whole request: the load client sends it in one write.
        let count = read(&mut client, &mut buffer, spins)?;
        if count == 0 {
            return Ok(());
        }
        upstream.write_all(&buffer[..count])?;
        relay_response(&mut client, &mut upstream, &mut buffer, spins)?;
    }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8], spins: u32) -> io::Result<usize> {
    for _ in 0..spins {
        thread::yield_now();
        match recv(&*stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, count)) => return Ok(count),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    stream.read(buffer)
}

fn relay_response(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    buffer: &mut [u8],
    spins: u32,
) -> io::Result<()> {
    let count = read(upstream, buffer, spins)?;
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
