use super::*;
use crate::config::target::Target;
use crate::http1::body::BodyDecoder;
use crate::net::socket::peek;
use crate::upstream::connection::open::{MAX_AGE, MAX_IDLE_TIME};
use crate::upstream::proxy_env::ProxySettings;
use crate::upstream::stream::{Stream, Tcp};
use crate::upstream::tls::TlsClient;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

/// The number of chunks. Each has one byte of data and a kilobyte of extension.
const CHUNKS: usize = 180;
const TIMEOUT: Duration = Duration::from_secs(5);

fn response() -> String {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1000));
    head.to_owned() + &chunk.repeat(CHUNKS)
}

/// Starts an upstream that reads a request, and sends the response at the first message of the sender.
fn start_upstream() -> (Target, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(socket.read(&mut request).unwrap() > 0);
        receiver.recv().unwrap();
        socket.write_all(response().as_bytes()).unwrap();
        // Keeps the socket open until the test ends.
        let _ = receiver.recv();
    });
    (Target::parse(&url).unwrap(), sender)
}

/// Connects to `target` and sends a GET.
fn send_get(target: &Target) -> UpstreamConnection {
    let upstream = Upstream::new(target, TIMEOUT, &[], &ProxySettings::Direct).unwrap();
    let mut connection = UpstreamConnection::new(&upstream);
    let request = Request {
        method: &Method::GET,
        target: b"/",
        fields: std::iter::empty(),
        body: RequestBody::None,
    };
    connection.send(request, CallContext::UNWATCHED).unwrap();
    connection
}

#[test]
fn data_is_passed_on_after_some_reads_even_if_more_has_arrived() {
    let (target, sender) = start_upstream();
    let mut connection = send_get(&target);
    let socket = connection.socket().upgrade().unwrap();
    socket2::SockRef::from(&*socket)
        .set_recv_buffer_size(1 << 20)
        .unwrap();
    sender.send(()).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let mut peeked = vec![0; 1 << 20];
    while peek(&socket, &mut peeked) < response().len() {
        assert!(Instant::now() < deadline, "not all of it arrived");
        thread::yield_now();
    }

    assert!(
        connection
            .receive(&Method::GET, CallContext::UNWATCHED)
            .unwrap()
            .is_some()
    );
    let mut buffer = [0; 16 * 1024];
    let mut received = 0;
    while let BodyRead::Data(length) = connection
        .try_read(&mut buffer, CallContext::UNWATCHED)
        .unwrap()
    {
        received += length;
    }
    assert!(
        received > 0 && received < CHUNKS,
        "{received} without a pause"
    );
    while received < CHUNKS {
        match connection
            .read(&mut buffer, CallContext::UNWATCHED)
            .unwrap()
        {
            BodyRead::Data(length) => received += length,
            other => panic!("{other:?} after {received}"),
        }
    }
}

/// Makes one exchange, changes the idle connection with `change`, and ends an exchange that needed no
/// upstream. Returns how long the connection has been idle, or `None` if it was closed.
fn idle_time_after_own_response(change: impl FnOnce(&mut OpenConnection)) -> Option<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let target = Target::parse(&url).unwrap();
    let mut connection = send_get(&target);
    let (mut socket, _) = listener.accept().unwrap();
    socket
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .unwrap();
    assert!(
        connection
            .receive(&Method::GET, CallContext::UNWATCHED)
            .unwrap()
            .is_some()
    );
    connection.end_exchange();
    change(connection.open.as_mut().unwrap());
    connection.end_exchange();
    let open = connection.open.as_ref();
    open.map(|open| since_boot().saturating_sub(open.last_used))
}

#[test]
fn a_response_of_our_own_does_not_make_an_idle_connection_younger_and_closes_an_old_one() {
    let recent = idle_time_after_own_response(|_| {});
    assert!(recent.is_some_and(|idle| idle < MAX_IDLE_TIME / 2));
    let half = idle_time_after_own_response(|open| open.last_used -= MAX_IDLE_TIME / 2);
    assert!(half.is_some_and(|idle| idle >= MAX_IDLE_TIME / 2));
    let old = idle_time_after_own_response(|open| open.last_used -= MAX_IDLE_TIME);
    assert_eq!(old, None);
}

#[test]
fn a_connection_takes_no_request_once_it_is_old_or_was_idle_for_long() {
    let (target, _sender) = start_upstream();
    let mut connection = send_get(&target);
    let open = connection.open.as_mut().unwrap();
    (open.persists, open.body) = (true, BodyDecoder::Ended);
    assert!(open.is_still_usable());
    let opened = open.opened;
    assert!(open.is_recent(opened + MAX_IDLE_TIME / 2));
    assert!(!open.is_recent(opened + 2 * MAX_IDLE_TIME));
    open.last_used = opened + MAX_AGE;
    assert!(open.is_recent(opened + MAX_AGE - Duration::from_secs(1)));
    assert!(!open.is_recent(opened + MAX_AGE));
}

/// Accepts a connection over TLS, and reads a request on it with a pause after each 16 KiB.
fn read_slowly(listener: TcpListener, certified: rcgen::CertifiedKey<rcgen::KeyPair>) {
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let (socket, _) = listener.accept().unwrap();
    let session = ServerConnection::new(Arc::new(config)).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let mut piece = vec![0; 16 * 1024];
    while stream.read_exact(&mut piece).is_ok() {
        thread::sleep(Duration::from_millis(700)); // its own pace
    }
}

#[test]
fn a_slow_upload_over_tls_is_no_timeout_while_it_moves() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let name = format!("flow-proxy-slow-upload-{}.pem", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, certified.cert.pem()).unwrap();
    let tls = TlsClient::new(&[("--ca-file", &path)]).unwrap();
    std::fs::remove_file(&path).unwrap();

    use socket2::{Domain, Socket, Type};
    let receiving = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    receiving.set_recv_buffer_size(8 * 1024).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    receiving.bind(&any.into()).unwrap();
    receiving.listen(1).unwrap();
    let listener = TcpListener::from(receiving);
    let address = listener.local_addr().unwrap();
    thread::spawn(move || read_slowly(listener, certified));

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(8 * 1024).unwrap();
    socket.connect(&address.into()).unwrap();
    let tcp = Tcp::new(socket.into(), Duration::ZERO).unwrap();
    let wait = Wait::For(TIMEOUT);
    let call = CallContext::UNWATCHED;
    let stream = tls
        .connect("localhost", Stream::Plain(tcp), wait, call)
        .unwrap();
    let mut request = Request {
        method: &Method::POST,
        target: b"/",
        fields: std::iter::empty(),
        body: RequestBody::Buffered(&[b'x'; 96 * 1024]),
    };
    let timeout = Duration::from_secs(1);
    let sent = OpenConnection::new(stream).send(&mut request, timeout, call);
    sent.unwrap();
}
