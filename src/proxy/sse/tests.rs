use super::partial_json::PartialJson;
use super::*;
use serde_json::Value;

/// Decodes a stream as the SDKs do. Returns the name and the joined data of each event.
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

/// The data of the error frame.
fn error_data(message: &str) -> String {
    let message = Value::from(message);
    format!(r#"{{"type":"error","error":{{"type":"api_error","message":{message}}}}}"#)
}

/// The bytes that close the stream of `scanner`.
fn closing_frames(scanner: &EventScanner, message: &str) -> Vec<u8> {
    scanner.closing_frames(message, &error_data(message))
}

/// The stream that broke off after `stream`, with its closing frames.
fn broken_after(stream: &str) -> String {
    let mut scanner = EventScanner::default();
    scanner.feed(stream.as_bytes());
    let frames = closing_frames(&scanner, "it \"broke\"");
    stream.to_owned() + std::str::from_utf8(&frames).unwrap()
}

const STREAM: &str = concat!(
    ": hello\n\nevent: delta\r\ndata: {\"a\":[1,-2.5e3,true,{\"b\\n\\u00e9\":\"c, }\\\"\"}],\"d\":",
    "{\"e\":[],\"f\":{}}, \"g\":null}\r\n\r\ndata: [DONE]\n\n"
);

/// Of a piece, only the end is looked at; byte by byte, nothing is passed over.
#[test]
fn a_stream_is_the_same_in_one_piece_and_byte_by_byte() {
    let event = |line_end: &str| {
        format!("data: {{\"z\":1}}{line_end}{line_end}event: x{line_end}data: {{\"a\":[")
    };
    for text in ["\n", "\r\n", "\r", "\n\r", "\r\n\r"].map(event) {
        let text = text.clone() + "1]}\n\r\n" + &text;
        for at in 0..=text.len() {
            let (mut whole, mut by_byte) = (EventScanner::default(), EventScanner::default());
            whole.feed(&text.as_bytes()[..at]);
            text.as_bytes()[..at]
                .chunks(1)
                .for_each(|byte| by_byte.feed(byte));
            assert_eq!(
                whole.is_at_boundary(),
                by_byte.is_at_boundary(),
                "{at} {text:?}"
            );
            assert_eq!(
                closing_frames(&whole, "broke"),
                closing_frames(&by_byte, "broke"),
                "{at} {text:?}"
            );
        }
    }
}

#[test]
fn boundaries_are_found_in_pieces_of_any_size() {
    for size in 1..STREAM.len() {
        let mut scanner = EventScanner::default();
        let mut sent = 0;
        for piece in STREAM.as_bytes().chunks(size) {
            scanner.feed(piece);
            sent += piece.len();
            let text = &STREAM[..sent];
            let is_boundary = ["\n\n", "\r\n\r\n", "\r\n\r"]
                .iter()
                .any(|end| text.ends_with(end));
            assert_eq!(scanner.is_at_boundary(), is_boundary, "{text:?}");
        }
    }
}

#[test]
fn a_stream_that_breaks_at_a_boundary_gets_only_the_error_event() {
    let stream = broken_after("data: {\"a\":1}\n\n");
    let expected = concat!(
        "data: {\"a\":1}\n\nevent: error\ndata: ",
        "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"it \\\"broke\\\"\"}}\n\n"
    );
    assert_eq!(stream, expected);
}

#[test]
fn wherever_a_stream_breaks_a_decoder_sees_complete_events_and_then_the_error() {
    let complete = decode(STREAM);
    for length in 0..STREAM.len() {
        if !STREAM.is_char_boundary(length) {
            continue;
        }
        let stream = broken_after(&STREAM[..length]);
        let events = decode(&stream);
        let first_error = events
            .iter()
            .position(|(name, _)| name == "error")
            .expect("an error");
        assert!(
            events[..first_error]
                .iter()
                .all(|event| complete.contains(event)),
            "{stream:?}"
        );
        let (_, last) = events.last().unwrap();
        let last: Value = serde_json::from_str(last).expect(last);
        assert_eq!(last["error"]["message"], "it \"broke\"", "{stream:?}");
        assert_eq!(last["type"], "error");
        assert!(stream.ends_with("\n\n"));
    }
}

/// The object that begins with `text`, or `None` if no object does.
fn object(text: &str) -> Option<PartialJson> {
    let mut object = PartialJson::default();
    let rest = text.strip_prefix('{')?;
    rest.bytes().try_for_each(|byte| object.feed(byte))?;
    Some(object)
}

#[test]
fn an_object_that_breaks_anywhere_is_completed_with_an_error_member() {
    let complete = "{\"a\":[1,-2.5e3,0,true,false,null,{\"b\\n\\u00e9\":\"c, }\\\"\"}],\"d\":{\"e\":[],\
                 \"f\":{}}, \"g\":\"\u{4f60}\"}";
    for length in 1..complete.len() {
        let Some(start) = complete.get(..length) else {
            continue;
        };
        let text = start.to_owned() + &object(start).expect(start).completion("m");
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value["error"]["message"], "m", "{text}");
        assert_eq!(value["message"], "m", "{text}");
    }
    assert!(object(complete).unwrap().is_complete());
    for other in ["{]", "{\"a\" 1", "{\"a\":tru,", "{\"a\":- ", "{} {", "{,"] {
        assert!(object(other).is_none(), "{other}");
    }
}

#[test]
fn a_character_that_was_cut_is_completed() {
    for character in [
        "\u{e3}",
        "\u{800}",
        "\u{4e16}",
        "\u{d7ff}",
        "\u{1f600}",
        "\u{10ffff}",
    ] {
        for start in ["data: {\"a\":\"", ": a comment ", "data: hello "] {
            for length in 1..character.len() {
                let mut scanner = EventScanner::default();
                let mut stream = start.as_bytes().to_vec();
                stream.extend_from_slice(&character.as_bytes()[..length]);
                scanner.feed(&stream);
                stream.extend(closing_frames(&scanner, "m"));
                assert!(std::str::from_utf8(&stream).is_ok(), "{stream:?}");
            }
        }
    }
}

#[test]
fn data_that_is_not_an_object_does_not_pass_for_a_complete_event() {
    for stream in [
        "data: hel",
        "data: [1,",
        "data: hello\n",
        "data: {\"a\":1}\nid: 7",
    ] {
        let events = decode(&broken_after(stream));
        assert_eq!(events.len(), 2, "{stream:?}");
        assert!(events.iter().all(|(name, _)| name == "error"), "{events:?}");
    }
}

#[test]
fn an_event_without_data_becomes_the_error() {
    for stream in [
        "dat",
        "data",
        "data:",
        "data: ",
        "event: x\ndata:\r",
        "data:\ndata: ",
    ] {
        let events = decode(&broken_after(stream));
        assert_eq!(events.len(), 1, "{stream:?}: {events:?}");
        assert_eq!(events[0].0, "error");
        let data: Value = serde_json::from_str(&events[0].1).unwrap();
        assert_eq!(data["error"]["message"], "it \"broke\"");
    }
}

#[test]
fn complete_data_without_its_empty_line_becomes_an_error() {
    for stream in ["event: x\ndata: {\"a\":1}", "data: [DON", "data: [DONE]"] {
        for end in ["", "\n", "\r"] {
            if stream.ends_with('N') && !end.is_empty() {
                continue;
            }
            let events = decode(&broken_after(&format!("{stream}{end}")));
            assert_eq!(events.len(), 2, "{stream:?}: {events:?}");
            assert!(events.iter().all(|(name, _)| name == "error"), "{events:?}");
        }
    }
}

#[test]
fn an_object_in_several_lines_is_completed_in_another_line() {
    for stream in [
        "data: {\"a\":\n",
        "data: {\"a\":\r\ndat",
        "data: {\ndata: \"a\":1,\nid",
    ] {
        let events = decode(&broken_after(stream));
        assert_eq!(events.len(), 2, "{stream:?}");
        for (name, data) in &events {
            assert_eq!(name, "error");
            let data: Value = serde_json::from_str(data).expect(data);
            assert_eq!(data["error"]["message"], "it \"broke\"");
        }
    }
}

#[test]
fn an_event_that_is_too_long_to_keep_is_completed_too() {
    let mut scanner = EventScanner::default();
    let mut stream = b"data: {\"a\":\"".to_vec();
    stream.resize(3 * MAX_TAIL + 7, b'x');
    for piece in stream.chunks(1000) {
        scanner.feed(piece);
    }
    stream.extend(closing_frames(&scanner, "m"));
    let events = decode(std::str::from_utf8(&stream).unwrap());
    assert_eq!(events.len(), 2);
    let data: Value = serde_json::from_str(&events[0].1).unwrap();
    assert_eq!(data["error"]["message"], "m");
}

#[test]
fn a_form_feed_is_not_json_white_space() {
    // The error must not become another line of this event's data, which no decoder could parse.
    let events = decode(&broken_after("data: \u{c}"));
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(serde_json::from_str::<Value>(&events[1].1).is_ok());
    assert!(object("{\"a\":\u{c}").is_none());
}

#[test]
fn data_after_a_byte_order_mark_is_data() {
    // Decoders that follow the standard drop the mark.
    let stream = broken_after("\u{feff}data: {\"a\":1");
    let events = decode(stream.strip_prefix('\u{feff}').unwrap());
    assert_eq!(events.len(), 2, "{events:?}");
    for (name, data) in events {
        assert_eq!(name, "error");
        let data: Value = serde_json::from_str(&data).expect(&data);
        assert_eq!(data["error"]["message"], "it \"broke\"");
    }
}

#[test]
fn only_one_byte_order_mark_at_the_start_of_a_stream_does_not_count() {
    // Elsewhere it is the beginning of a line that has no data: what is closed is no event.
    for stream in [
        "\u{feff}\u{feff}data: {\"a\":1",
        "data: {}\n\n\u{feff}data: {\"a\":1",
        "data: {}\n\n: x\n\u{feff}data: {\"a\":1",
    ] {
        let before = decode(stream).len();
        let events = decode(&broken_after(stream));
        assert_eq!(events.len(), before + 1, "{stream:?}: {events:?}");
        let data: Value = serde_json::from_str(&events[before].1).expect(&events[before].1);
        assert_eq!(data["error"]["message"], "it \"broke\"");
    }
}
