use super::*;
use std::net::TcpListener;

/// An address at which no connection is completed: the queue of its listener is full.
struct Deaf {
    listener: TcpListener,
    address: SocketAddr,
    _queued: Vec<TcpStream>,
}

impl Deaf {
    fn start() -> Deaf {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let short = Duration::from_millis(200);
        let queued = (0..8)
            .map_while(|_| TcpStream::connect_timeout(&address, short).ok())
            .collect();
        Deaf {
            listener,
            address,
            _queued: queued,
        }
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(addresses: &[SocketAddr], within: Duration) -> Result<TcpStream, WaitError> {
    connect_any(addresses, Instant::now() + within, CallContext::UNWATCHED)
}

#[test]
fn a_dead_address_delays_the_next_one_by_a_quarter_of_a_second() {
    let (deaf, (_listener, good)) = (Deaf::start(), listen());
    let started = Instant::now();
    let socket = connect(&[deaf.address, good], Duration::from_secs(10)).unwrap();
    let took = started.elapsed();
    assert_eq!(socket.peer_addr().unwrap(), good);
    let expected = Duration::from_millis(240)..Duration::from_millis(1500);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn the_first_address_is_not_abandoned_for_a_dead_one() {
    let (slow, dead) = (Deaf::start(), Deaf::start());
    let accepting = slow.listener.try_clone().unwrap();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(400)); // the first address's own pace
        while accepting.accept().is_ok() {}
    });
    let socket = connect(&[slow.address, dead.address], Duration::from_secs(10)).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), slow.address);
}

#[test]
fn an_address_that_rejects_delays_nothing() {
    let (closed, address) = listen();
    drop(closed);
    let (_listener, good) = listen();
    let started = Instant::now();
    let socket = connect(&[address, address, good], Duration::from_secs(10)).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), good);
    let took = started.elapsed();
    assert!(took < Duration::from_millis(240), "{took:?}");
    let error = connect(&[address], Duration::from_secs(10)).unwrap_err();
    let WaitError::Io(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_deadline_ends_all_attempts() {
    let (one, two) = (Deaf::start(), Deaf::start());
    let started = Instant::now();
    let deadline = started + Duration::from_millis(600);
    let result = connect_any(
        &[one.address, two.address],
        deadline,
        CallContext::UNWATCHED,
    );
    assert!(matches!(result, Err(WaitError::TimedOut)));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn families_take_turns() {
    let of = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (a, b, c) = (of("[::1]:1"), of("[::1]:2"), of("[::1]:3"));
    let (x, y) = (of("1.1.1.1:1"), of("1.1.1.1:2"));
    assert_eq!(families_in_turn(&[a, b, c, x, y]), [a, x, b, y, c]);
    assert_eq!(families_in_turn(&[x, y, a]), [x, a, y]);
    assert_eq!(families_in_turn(&[x]), [x]);
    assert_eq!(families_in_turn(&[]), []);
}
