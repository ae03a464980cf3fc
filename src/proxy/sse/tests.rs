use super::partial_json::PartialJson;
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

/// The data of the error frame.
fn error_data(message: &str) -> String {
    let message = Value::from(message);
    format!(r#"{{"type":"error","error":{{"type":"api_error","message":{message}}}}}"#)
}

/// The bytes that end `scanner`'s stream.
fn closing_frames(scanner: &EventScanner, message: &str) -> Vec<u8> {
    scanner.closing_frames(message, &error_data(message))
}

fn broken_after(stream: &str) -> String {
    let mut tail = EventScanner::default();
    tail.feed(stream.as_bytes());
    stream.to_owned() + std::str::from_utf8(&closing_frames(&tail, "it \"broke\"")).unwrap()
}

const WHOLE: &str = concat!(
    ": hello\n\nevent: delta\r\ndata: {\"a\":[1,-2.5e3,true,{\"b\\n\\u00e9\":\"c, }\\\"\"}],\"d\":",
    "{\"e\":[],\"f\":{}}, \"g\":null}\r\n\r\ndata: [DONE]\n\n"
);

#[test]
fn boundaries_are_found_in_pieces_of_any_size() {
    for size in 1..WHOLE.len() {
        let mut tail = EventScanner::default();
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

/// The object that `text` begins; `None`: it begins none.
fn object(text: &str) -> Option<PartialJson> {
    let mut object = PartialJson::default();
    let rest = text.strip_prefix('{')?;
    rest.bytes().try_for_each(|byte| object.take(byte))?;
    Some(object)
}

#[test]
fn an_object_that_breaks_anywhere_is_completed_with_an_error_member() {
    let whole = "{\"a\":[1,-2.5e3,0,true,false,null,{\"b\\n\\u00e9\":\"c, }\\\"\"}],\"d\":{\"e\":[],\
                 \"f\":{}}, \"g\":\"\u{4f60}\"}";
    for length in 1..whole.len() {
        let Some(start) = whole.get(..length) else {
            continue;
        };
        let text = start.to_owned() + &object(start).expect(start).completion("m");
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value["error"]["message"], "m", "{text}");
        assert_eq!(value["message"], "m", "{text}");
    }
    assert!(object(whole).unwrap().is_whole());
    for other in ["{]", "{\"a\" 1", "{\"a\":tru,", "{\"a\":- ", "{} {", "{,"] {
        assert!(object(other).is_none(), "{other}");
    }
}

#[test]
fn a_character_that_was_cut_is_made_whole() {
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
                let mut tail = EventScanner::default();
                let mut stream = start.as_bytes().to_vec();
                stream.extend_from_slice(&character.as_bytes()[..length]);
                tail.feed(&stream);
                stream.extend(closing_frames(&tail, "m"));
                assert!(std::str::from_utf8(&stream).is_ok(), "{stream:?}");
            }
        }
    }
}

#[test]
fn data_that_is_no_object_is_not_taken_for_a_whole_event() {
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
fn data_without_anything_in_it_becomes_the_error() {
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
fn data_that_is_whole_is_an_error_all_the_same_without_its_empty_line() {
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
fn an_object_in_several_lines_is_completed_in_a_line_of_its_own() {
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
fn an_event_that_is_too_long_to_keep_is_completed_all_the_same() {
    let mut tail = EventScanner::default();
    let mut stream = b"data: {\"a\":\"".to_vec();
    stream.resize(3 * MAX_TAIL + 7, b'x');
    for piece in stream.chunks(1000) {
        tail.feed(piece);
    }
    stream.extend(closing_frames(&tail, "m"));
    let events = decode(std::str::from_utf8(&stream).unwrap());
    assert_eq!(events.len(), 2);
    let data: Value = serde_json::from_str(&events[0].1).unwrap();
    assert_eq!(data["error"]["message"], "m");
}

#[test]
fn a_form_feed_is_no_white_space_of_json() {
    // The frame must not become another line of this event's data: no decoder could parse that.
    let events = decode(&broken_after("data: \u{c}"));
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(serde_json::from_str::<Value>(&events[1].1).is_ok());
    assert!(object("{\"a\":\u{c}").is_none());
}

#[test]
fn data_behind_a_byte_order_mark_is_data() {
    // As decoders that follow the standard see it: without the mark.
    let stream = broken_after("\u{feff}data: {\"a\":1");
    let events = decode(stream.strip_prefix('\u{feff}').unwrap());
    assert_eq!(events.len(), 2, "{events:?}");
    for (name, data) in events {
        assert_eq!(name, "error");
        let data: Value = serde_json::from_str(&data).expect(&data);
        assert_eq!(data["error"]["message"], "it \"broke\"");
    }
}
