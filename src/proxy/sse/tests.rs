use super::*;
use serde_json::Value;

/// The events of a stream as the SDKs decode them: name and joined data.
fn decode(stream: &str) -> Vec<(String, String)> {
    let mut events = Vec::new();
    let (mut name, mut data) = (String::new(), Vec::new());
    for line in stream.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
        if line.is_empty() {
            if !name.is_empty() || !data.is_empty() {
                events.push((std::mem::take(&mut name), data.join("\n")));
                data.clear();
            }
        } else if let Some(value) = line.strip_prefix("event:") {
            name = value.trim_start().into();
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value).to_owned());
        }
    }
    events
}

fn broken_after(stream: &str) -> String {
    let mut tail = EventTail::default();
    tail.feed(stream.as_bytes());
    stream.to_owned() + std::str::from_utf8(&tail.ending("it \"broke\"")).unwrap()
}

const WHOLE: &str = concat!(
    ": hello\n\nevent: delta\r\ndata: {\"a\":[1,-2.5e3,true,{\"b\\n\\u00e9\":\"c, }\\\"\"}],\"d\":",
    "{\"e\":[],\"f\":{}}, \"g\":null}\r\n\r\ndata: [DONE]\n\n"
);

#[test]
fn boundaries_are_found_in_pieces_of_any_size() {
    for size in 1..WHOLE.len() {
        let mut tail = EventTail::default();
        let mut sent = 0;
        for piece in WHOLE.as_bytes().chunks(size) {
            tail.feed(piece);
            sent += piece.len();
            let text = &WHOLE[..sent];
            let whole = ["\n\n", "\r\n\r\n", "\r\n\r"]
                .iter()
                .any(|end| text.ends_with(end));
            assert_eq!(tail.is_at_boundary(), whole, "{text:?}");
        }
    }
}

#[test]
fn a_stream_that_breaks_at_a_boundary_gets_just_the_frame() {
    let stream = broken_after("data: {\"a\":1}\n\n");
    let expected = concat!(
        "data: {\"a\":1}\n\nevent: error\ndata: ",
        "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"it \\\"broke\\\"\"}}\n\n"
    );
    assert_eq!(stream, expected);
}

#[test]
fn wherever_a_stream_breaks_the_decoder_sees_whole_events_and_then_the_error() {
    let whole: Vec<_> = decode(WHOLE);
    for length in 0..WHOLE.len() {
        if !WHOLE.is_char_boundary(length) {
            continue;
        }
        let stream = broken_after(&WHOLE[..length]);
        let events = decode(&stream);
        let first_error = events
            .iter()
            .position(|(name, _)| name == "error")
            .expect("an error");
        assert!(
            events[..first_error]
                .iter()
                .all(|event| whole.contains(event)),
            "{stream:?}"
        );
        let (_, last) = events.last().unwrap();
        let last: Value = serde_json::from_str(last).expect(last);
        assert_eq!(last["error"]["message"], "it \"broke\"", "{stream:?}");
        assert_eq!(last["type"], "error");
        assert!(stream.ends_with("\n\n"));
    }
}

#[test]
fn an_object_that_breaks_anywhere_is_completed_with_an_error_member() {
    let object = "{\"a\":[1,-2.5e3,0,true,false,null,{\"b\\n\\u00e9\":\"c, }\\\"\"}],\"d\":{\"e\":[],\
                  \"f\":{}}, \"g\":\"\u{4f60}\"}";
    for length in 1..object.len() {
        let Some(start) = object.get(..length) else {
            continue;
        };
        let completion = complete_object(start.as_bytes(), "m").expect(start);
        let text = format!("{start}{completion}");
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value["error"]["message"], "m", "{text}");
    }
    assert_eq!(complete_object(object.as_bytes(), "m"), None);
    for other in ["", "[1", "\"a", "{]", "{\"a\" 1", "hello"] {
        assert_eq!(complete_object(other.as_bytes(), "m"), None, "{other}");
    }
}

#[test]
fn data_that_is_no_object_is_not_taken_for_a_whole_event() {
    for stream in [
        "data: hel",
        "data: [DON",
        "data: [DONE]\n",
        "event: x\ndata: {\"a\":1}\n",
    ] {
        let events = decode(&broken_after(stream));
        assert_eq!(events.len(), 2, "{stream:?}");
        assert!(events.iter().all(|(name, _)| name == "error"), "{events:?}");
    }
}

#[test]
fn an_event_that_is_too_long_to_keep_is_still_ended() {
    let stream = format!("data: {{\"a\":\"{}", "x".repeat(MAX_TAIL));
    let events = decode(&broken_after(&stream));
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].0, "error");
}
