//! Connects through a SOCKS version 5 proxy (RFC 1928, RFC 1929). The proxy resolves the target's name.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use ureq::Proxy;
use zeroize::Zeroizing;

use super::connect::Endpoint;

const VERSION: u8 = 5;
// Authentication methods (RFC 1928 section 3).
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
// The command and the address types (RFC 1928 sections 4 and 5).
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks `proxy` to connect to `target` (RFC 1928 sections 3 to 6).
///
/// # Errors
/// The stream fails, or the proxy rejects the request or sends an invalid reply.
pub(super) fn ask(
    stream: &mut (impl Read + Write),
    proxy: &Proxy,
    target: &Endpoint,
) -> io::Result<()> {
    let credentials = proxy
        .username()
        .map(|user| (user, proxy.password().unwrap_or_default()));
    let methods: &[u8] = match credentials {
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
        None => &[VERSION, 1, NO_AUTHENTICATION],
    };
    stream.write_all(methods)?;
    let [version, chosen] = read_array(stream)?;
    if version != VERSION {
        return Err(io::Error::other("the SOCKS proxy does not speak version 5"));
    }
    match (chosen, credentials) {
        (NO_AUTHENTICATION, _) => {}
        (USER_AND_PASSWORD, Some((user, password))) => authenticate(stream, user, password)?,
        _ => {
            return Err(io::Error::other(
                "the SOCKS proxy wants another authentication",
            ));
        }
    }
    stream.write_all(&connect_request(target)?)?;
    let [version, reply, _, address_type] = read_array(stream)?;
    if version != VERSION || reply != 0 {
        return Err(io::Error::other(format!(
            "the SOCKS proxy rejects the connection: {}",
            reason(reply)
        )));
    }
    // Skip the address that the proxy has bound, and its port of two bytes.
    let length = match address_type {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(read_array::<1>(stream)?[0]),
        _ => return Err(io::Error::other("the SOCKS proxy's reply is malformed")),
    };
    let mut bound = [0; 255 + 2];
    stream.read_exact(&mut bound[..length + 2])
}

/// Sends user and password (RFC 1929 section 2).
fn authenticate(stream: &mut (impl Read + Write), user: &str, password: &str) -> io::Result<()> {
    const VERSION: u8 = 1;
    // All at once: a vector that grows leaves copies of the password behind.
    let mut request = Zeroizing::new(Vec::with_capacity(3 + user.len() + password.len()));
    request.push(VERSION);
    for text in [user, password] {
        let length = u8::try_from(text.len())
            .map_err(|_| io::Error::other("user or password of the SOCKS proxy is too long"))?;
        request.push(length);
        request.extend_from_slice(text.as_bytes());
    }
    stream.write_all(&request)?;
    match read_array(stream)? {
        [_, 0] => Ok(()),
        [_, _] => Err(io::Error::other(
            "the SOCKS proxy rejects its user or password",
        )),
    }
}

/// Encodes the request to connect to `target` (RFC 1928 section 4).
fn connect_request(target: &Endpoint) -> io::Result<Vec<u8>> {
    let Endpoint { host, port } = target;
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len())
                .map_err(|_| io::Error::other("the target's name is too long for SOCKS"))?;
            request.extend_from_slice(&[NAME, length]);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

fn read_array<const LENGTH: usize>(stream: &mut impl Read) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Describes the reply of a proxy that has not connected (RFC 1928 section 6).
fn reason(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "it knows no CONNECT",
        8 => "it knows no such address type",
        _ => "for no known reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy that sends prepared replies, and keeps what it receives.
    struct ScriptedProxy {
        replies: io::Cursor<Vec<u8>>,
        received: Vec<u8>,
    }

    impl Read for ScriptedProxy {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.replies.read(buffer)
        }
    }

    impl Write for ScriptedProxy {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.received.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the result of a handshake, and the bytes that the proxy received.
    fn shake_hands(
        proxy_url: &str,
        target: (&str, u16),
        replies: &[u8],
    ) -> (io::Result<()>, Vec<u8>) {
        let mut stream = ScriptedProxy {
            replies: io::Cursor::new(replies.to_vec()),
            received: Vec::new(),
        };
        let proxy = Proxy::new(proxy_url).unwrap();
        let result = ask(&mut stream, &proxy, &Endpoint::new(target.0, target.1));
        (result, stream.received)
    }

    #[test]
    fn the_proxy_is_asked_to_connect_to_the_name() {
        let replies = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let (result, received) =
            shake_hands("socks5://127.0.0.1:1", ("flow.example", 443), &replies);
        result.unwrap();
        assert_eq!(
            received,
            b"\x05\x01\x00\x05\x01\x00\x03\x0cflow.example\x01\xbb"
        );
    }

    #[test]
    fn user_and_password_of_the_url_are_sent() {
        let replies = [5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 0];
        let (result, received) =
            shake_hands("socks5://me:fake@127.0.0.1:1", ("[::1]", 8443), &replies);
        result.unwrap();
        let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let expected = [
            b"\x05\x02\x00\x02\x01\x02me\x04fake\x05\x01\x00\x04".as_slice(),
            &address,
            b"\x20\xfb",
        ];
        assert_eq!(received, expected.concat());
    }

    #[test]
    fn rejections_and_malformed_replies_are_errors() {
        for replies in [
            &[4, 0][..],
            &[5, 255],
            &[5, 2],
            &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0],
            &[5, 0, 5, 0, 0, 9, 0, 0],
            &[5, 0, 5, 0, 0, 1, 0],
            &[],
        ] {
            assert!(
                shake_hands("socks5://127.0.0.1:1", ("a", 80), replies)
                    .0
                    .is_err(),
                "{replies:?}"
            );
        }
    }
}
