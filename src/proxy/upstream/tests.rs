use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

/// Chunks of one byte with a kilobyte of extension.
const FRAMING: usize = 1000;

/// An upstream that answers with `chunks` chunks that are almost only framing, and what it has
/// written when all of them are on their way.
fn answering_with_framing(chunks: usize) -> (Target, thread::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let written = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(socket.read(&mut request).unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(FRAMING));
        let answer = head.to_owned() + &chunk.repeat(chunks);
        socket.write_all(answer.as_bytes()).unwrap();
        socket
    });
    (Target::parse(&url).unwrap(), written)
}

#[test]
fn what_has_come_is_passed_on_after_a_while_however_much_framing_is_still_there() {
    let (target, written) = answering_with_framing(400);
    let silence = Duration::from_secs(5);
    let factory = UpstreamFactory::new(&target, silence, None, &Way::Direct).unwrap();
    let mut upstream = Upstream::new(&factory);
    let fields: [(&[u8], &[u8]); 0] = [];
    let request = Request {
        method: &Method::GET,
        target: b"/",
        fields: fields.into_iter(),
        body: RequestBody::None,
    };
    upstream.send(request, None).unwrap();
    let _socket = written.join().unwrap();
    assert!(upstream.receive(&Method::GET).unwrap().is_some());
    let mut room = [0; 16 * 1024];
    let (mut taken, mut pauses) = (0, 0);
    while taken < 400 {
        match upstream.read_now(&mut room).unwrap() {
            Piece::Data(length) => taken += length,
            Piece::NotYet => {
                pauses += 1;
                let Piece::Data(length) = upstream.read(&mut room).unwrap() else {
                    panic!("the answer goes on");
                };
                taken += length;
            }
            Piece::End => panic!("the answer goes on"),
        }
    }
    // 400 KB in reads of 16 KiB at most.
    assert!(pauses >= 2, "{pauses}");
}
