//! The listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel holds, completed and not yet accepted.
const BACKLOG: i32 = 1024;

/// Binds `address` and listens; port 0 means any free port. Accepting never blocks.
///
/// # Errors
/// The error of the operating system: address in use, no permission, no such address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
