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
fn an_address_that_fails_at_once_lets_the_next_one_start_at_once() {
    let (deaf, (_listener, good)) = (Deaf::start(), listen());
    // The kernel connects no stream to a broadcast address.
    let invalid: SocketAddr = "255.255.255.255:9".parse().unwrap();
    let started = Instant::now();
    let addresses = [deaf.address, invalid, good];
    let socket = connect(&addresses, Duration::from_secs(10)).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), good);
    let took = started.elapsed();
    assert!(took < Duration::from_millis(450), "{took:?}");
}

#[test]
fn callers_wait_for_the_lookup_in_flight() {
    let resolver = Resolver::new(Endpoint::new("no\0name", 443));
    let in_flight = Arc::new(Lookup::default());
    *lock(&resolver.in_flight) = Arc::downgrade(&in_flight);
    let resolve = |within: u64| {
        let deadline = Instant::now() + Duration::from_millis(within);
        resolver.resolve(deadline, CallContext::UNWATCHED)
    };
    assert!(matches!(resolve(150), Err(WaitError::TimedOut)));
    let address = "192.0.2.1:443".parse().unwrap();
    thread::scope(|scope| {
        let callers = [(); 3].map(|()| scope.spawn(|| resolve(10_000)));
        while Arc::strong_count(&in_flight) <= callers.len() {
            thread::yield_now();
        }
        // The last one has joined when it gives this lock back.
        drop(lock(&resolver.in_flight));
        *lock(&in_flight.result) = Some(Ok(vec![address]));
        in_flight.is_done.notify_all();
        for caller in callers {
            assert_eq!(caller.join().unwrap().unwrap(), [address]);
        }
    });
    assert!(
        matches!(resolve(10_000), Err(WaitError::Io(_))),
        "it is asked anew"
    );
}

#[test]
fn the_reason_why_a_name_does_not_resolve_is_kept() {
    let error_for = |error| {
        let lookup = Lookup::default();
        *lock(&lookup.result) = Some(Err(error));
        lookup.result_within(Duration::ZERO).unwrap().unwrap_err()
    };
    let error = error_for(io::Error::other("Name or service not known"));
    assert_eq!(
        error.to_string(),
        "the name does not resolve (Name or service not known)"
    );
    let none_left = rustix::io::Errno::MFILE.raw_os_error();
    let error = error_for(io::Error::from_raw_os_error(none_left));
    assert_eq!(error.raw_os_error(), Some(none_left));
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
