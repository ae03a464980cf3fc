//! A SOCKS version 5 proxy before the upstream (RFC 1928, RFC 1929).
//!
//! ureq has a connector for this, on a transport that waits without seeing the client; this one
//! speaks the same few bytes over ours. The proxy resolves the target's name.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use ureq::http::Uri;
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, Either, Transport, TransportAdapter,
};
use ureq::{Proxy, ProxyProtocol};

use super::stream::{CallState, TcpTransport};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// Connects through the SOCKS proxy of the configuration, if it has one.
#[derive(Debug)]
pub(super) struct Socks {
    pub(super) call: Arc<CallState>,
}

impl<In: Transport> Connector<In> for Socks {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        use ProxyProtocol::{Socks5, Socks5h};
        let proxy = details.config.proxy();
        let Some(proxy) = proxy.filter(|proxy| matches!(proxy.protocol(), Socks5 | Socks5h)) else {
            return Ok(chained.map(Either::A));
        };
        if chained.is_some() || proxy.is_no_proxy(details.uri) {
            return Ok(chained.map(Either::A));
        }
        let transport = TcpTransport::connect(proxy.uri(), details, &self.call)?;
        let mut stream = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        stream.set_timeout(details.timeout);
        handshake(&mut stream, proxy, details.uri)?;
        Ok(Some(Either::B(stream.into_inner())))
    }
}

fn handshake(stream: &mut (impl Read + Write), proxy: &Proxy, target: &Uri) -> io::Result<()> {
    let credentials = proxy
        .username()
        .map(|user| (user, proxy.password().unwrap_or_default()));
    let method = if credentials.is_some() {
        USER_AND_PASSWORD
    } else {
        NO_AUTHENTICATION
    };
    stream.write_all(&[VERSION, 1, method])?;
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
            "the SOCKS proxy refuses: {}",
            reason(reply)
        )));
    }
    // The address that the proxy bound is of no use here, but it must be read.
    let length = match address_type {
        1 => 4,
        4 => 16,
        3 => usize::from(read_array::<1>(stream)?[0]),
        _ => return Err(io::Error::other("the SOCKS proxy's answer is malformed")),
    };
    let mut bound = [0; 255 + 2];
    stream.read_exact(&mut bound[..length + 2])
}

/// RFC 1929 section 2.
fn authenticate(stream: &mut (impl Read + Write), user: &str, password: &str) -> io::Result<()> {
    let mut request = vec![1];
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

/// RFC 1928 section 4.
fn connect_request(target: &Uri) -> io::Result<Vec<u8>> {
    let host = target.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let default_port = if target.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let mut request = vec![VERSION, CONNECT, 0];
    match bare.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            let length = u8::try_from(bare.len())
                .map_err(|_| io::Error::other("the target's name is too long for SOCKS"))?;
            request.extend_from_slice(&[3, length]);
            request.extend_from_slice(bare.as_bytes());
        }
    }
    let port = target.port_u16().unwrap_or(default_port);
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

fn read_array<const LENGTH: usize>(stream: &mut impl Read) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// RFC 1928 section 6.
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

    /// Answers from a script, and keeps what it was sent.
    struct Script {
        answers: io::Cursor<Vec<u8>>,
        sent: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.answers.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.sent.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shake(proxy: &str, target: &'static str, answers: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let answers = io::Cursor::new(answers.to_vec());
        let mut script = Script {
            answers,
            sent: Vec::new(),
        };
        let proxy = Proxy::new(proxy).unwrap();
        let result = handshake(&mut script, &proxy, &Uri::from_static(target));
        (result, script.sent)
    }

    #[test]
    fn the_proxy_is_asked_to_connect_to_the_name() {
        let answers = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let (result, sent) = shake("socks5://127.0.0.1:1", "https://flow.example/x", &answers);
        result.unwrap();
        assert_eq!(
            sent,
            b"\x05\x01\x00\x05\x01\x00\x03\x0cflow.example\x01\xbb"
        );
    }

    #[test]
    fn user_and_password_are_given_where_the_url_has_them() {
        let answers = [5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 0];
        let (result, sent) = shake(
            "socks5://me:fake@127.0.0.1:1",
            "https://[::1]:8443",
            &answers,
        );
        result.unwrap();
        let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let expected = [
            b"\x05\x01\x02\x01\x02me\x04fake\x05\x01\x00\x04".as_slice(),
            &address,
            b"\x20\xfb",
        ];
        assert_eq!(sent, expected.concat());
    }

    #[test]
    fn every_refusal_is_an_error() {
        for answers in [
            &[4, 0][..],
            &[5, 255],
            &[5, 2],
            &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0],
            &[5, 0, 5, 0, 0, 9, 0, 0],
            &[5, 0, 5, 0, 0, 1, 0],
            &[],
        ] {
            assert!(
                shake("socks5://127.0.0.1:1", "http://a", answers)
                    .0
                    .is_err(),
                "{answers:?}"
            );
        }
    }
}
