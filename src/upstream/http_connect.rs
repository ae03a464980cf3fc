//! Connects through an HTTP proxy: CONNECT (RFC 9110 section 9.3.6). The proxy resolves the target's name.

use std::io::{self, Read, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use ureq::Proxy;
use zeroize::Zeroizing;

use super::connect::Endpoint;

/// The longest head of the proxy's response, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The most fields in it.
const MAX_FIELDS: usize = 64;

/// Asks `proxy` for a tunnel to `target`.
///
/// # Errors
/// The stream fails, or the proxy rejects the request or sends an invalid response.
pub(super) fn ask(
    stream: &mut (impl Read + Write),
    proxy: &Proxy,
    target: &Endpoint,
) -> io::Result<()> {
    let head =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Connection: Keep-Alive\r\n");
    let has_credentials = proxy.username().is_some() || proxy.password().is_some();
    if has_credentials {
        stream.write_all(with_credentials(&head, proxy).as_bytes())?;
    } else {
        stream.write_all((head + "\r\n").as_bytes())?;
    }
    match read_status(stream)? {
        status if status.is_success() => Ok(()),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED if has_credentials => Err(io::Error::other(
            "the proxy rejects its user or password (407): check them in its URL",
        )),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(io::Error::other(
            "the proxy wants a user and a password (407): put them into its URL",
        )),
        status => Err(io::Error::other(format!(
            "the proxy rejects the connection with status {}",
            status.as_u16()
        ))),
    }
}

/// Returns `head` with the proxy's user and password (RFC 7617 section 2), and the head's end. No memory that
/// grows leaves copies of the password behind.
fn with_credentials(head: &str, proxy: &Proxy) -> Zeroizing<String> {
    let user = proxy.username().unwrap_or_default();
    let password = proxy.password().unwrap_or_default();
    let length = user.len() + 1 + password.len();
    let mut plain = Zeroizing::new(String::with_capacity(length));
    for part in [user, ":", password] {
        plain.push_str(part);
    }
    let (field, end) = ("Proxy-Authorization: Basic ", "\r\n\r\n");
    let room = head.len() + field.len() + 4 * length.div_ceil(3) + end.len();
    let mut request = Zeroizing::new(String::with_capacity(room));
    request.push_str(head);
    request.push_str(field);
    BASE64_STANDARD.encode_string(plain.as_bytes(), &mut request);
    request.push_str(end);
    request
}

/// Reads the proxy's final response, which nothing may follow: the target speaks only when it is spoken to.
/// Its fields count for nothing (RFC 9110 section 9.3.6).
fn read_status(stream: &mut impl Read) -> io::Result<StatusCode> {
    let mut head = vec![0; MAX_HEAD];
    let mut filled = 0;
    loop {
        let length = match stream.read(&mut head[filled..])? {
            0 if filled == MAX_HEAD => Err("the proxy's response is too long"),
            0 => Err("the proxy closed the connection before it responded"),
            length => Ok(length),
        };
        filled += length.map_err(io::Error::other)?;
        while let Some((length, status)) = parse(&head[..filled])? {
            if !status.is_informational() {
                return if status.is_success() && length < filled {
                    let message = "the proxy sent something behind its response";
                    Err(io::Error::other(message))
                } else {
                    Ok(status)
                };
            }
            head.copy_within(length..filled, 0);
            filled -= length;
        }
    }
}

/// Returns the length and the status of the response at the start of `bytes`, if its head is whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(usize, StatusCode)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let code = response.code.unwrap_or_default();
            let status = StatusCode::from_u16(code).map_err(io::Error::other)?;
            Ok(Some((length, status)))
        }
        Err(error) => Err(io::Error::other(format!(
            "the proxy sent no valid HTTP response: {error}"
        ))),
    }
}
