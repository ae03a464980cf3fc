use super::*;

fn four_lines() -> HeaderBlock {
    HeaderBlock::of(&[("HOST", "1"), ("b", "2"), ("host", "3"), ("Te", "4")])
}

/// Parses the header lines of `head` into the memory of `spare`.
fn parse(head: &[u8], mut spare: HeaderBlock) -> HeaderBlock {
    assert_eq!(spare.parse::<4>(head), Ok(Some(head.len())));
    spare
}

/// The lines for which `keeps` is true, as they are sent.
fn sent(fields: &HeaderBlock, keeps: impl Fn(KnownHeader, &[u8]) -> bool + Clone) -> String {
    let bytes: Vec<u8> = fields.raw_lines(keeps).flatten().copied().collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn names_are_found_in_any_case_and_keep_their_case() {
    let fields = four_lines();
    assert_eq!(fields.value(KnownHeader::Host), Some(&b"1"[..]));
    assert_eq!(
        fields.values(KnownHeader::Host).collect::<Vec<_>>(),
        [b"1", b"3"]
    );
    assert_eq!(fields.value(KnownHeader::Origin), None);
    assert_eq!(fields.iter().next(), Some((&b"HOST"[..], &b"1"[..])));
}

#[test]
fn each_known_name_is_distinguished_from_all_other_names() {
    for &(header, name) in KNOWN_HEADERS {
        assert_eq!(KnownHeader::of(name), header);
        assert_eq!(KnownHeader::of(&name.to_ascii_uppercase()), header);
        for index in 0..name.len() {
            let mut other = name.to_vec();
            other[index] = b'~';
            assert_eq!(
                KnownHeader::of(&other),
                KnownHeader::Other,
                "{}",
                other.escape_ascii()
            );
        }
    }
}

#[test]
fn reparsing_leaves_nothing_of_the_last_message() {
    let fields = parse(b"Expect: x\r\n\r\n", four_lines());
    assert_eq!(fields, HeaderBlock::of(&[("Expect", "x")]));
    assert_eq!(fields.value(KnownHeader::Host), None);
    assert_eq!(fields.value(KnownHeader::Expect), Some(&b"x"[..]));
}

#[test]
fn lines_are_sent_in_canonical_form() {
    for (head, canonical) in [
        ("A: 1\r\nb: 2\r\n", "A: 1\r\nb: 2\r\n"),
        ("A:1\r\nb:  2\r\nc:\t3 \r\n", "A: 1\r\nb: 2\r\nc: 3\r\n"),
        ("A:\r\nb: \r\nc: x\r\n", "A: \r\nb: \r\nc: x\r\n"),
        // httparse accepts a bare LF. In a request it has been rejected before.
        ("A: 1\nb: 2\r\n", "A: 1\r\nb: 2\r\n"),
        ("A: 1\r\nb: 2\n", "A: 1\r\nb: 2\r\n"),
    ] {
        let head = format!("{head}\r\n");
        let fields = parse(head.as_bytes(), HeaderBlock::default());
        assert_eq!(sent(&fields, |_, _| true), canonical, "{head:?}");
    }
}

#[test]
fn lines_that_are_not_kept_are_left_out_and_the_rest_keep_their_order() {
    let names = ["host", "a", "te", "b", "c"];
    let pairs = names.map(|name| (name, "x"));
    let mut fields = HeaderBlock::of(&pairs);
    // Each bit says whether one of the names is kept.
    for kept in 0..1 << names.len() {
        let is_kept = |name: &[u8]| {
            let index = names.iter().position(|other| other.as_bytes() == name);
            kept >> index.unwrap() & 1 == 1
        };
        let kept_names = names.iter().filter(|name| is_kept(name.as_bytes()));
        let expected: String = kept_names.map(|name| format!("{name}: x\r\n")).collect();
        assert_eq!(sent(&fields, |_, name| is_kept(name)), expected);
    }
    assert_eq!(fields.raw_lines(|_, _| true).count(), 1, "one slice");
    fields.remove(KnownHeader::Te);
    assert_eq!(fields.raw_lines(|_, _| true).count(), 2);
}

#[test]
fn a_large_block_is_not_reused() {
    let value = "x".repeat(MAX_REUSED_BYTES);
    let long = HeaderBlock::of(&[("a", &value)]);
    assert!(long.reusable().bytes.capacity() == 0);
    assert!(four_lines().reusable().bytes.capacity() > 0);
    let many = HeaderBlock {
        lines: Vec::with_capacity(MAX_REUSED_LINES + 1),
        ..HeaderBlock::default()
    };
    assert_eq!(many.reusable().lines.capacity(), 0);
}

#[test]
fn lines_can_be_removed_and_merged() {
    let mut fields = four_lines();
    fields.remove(KnownHeader::Te);
    fields.merge(KnownHeader::Host, "13");
    assert_eq!(fields, HeaderBlock::of(&[("HOST", "13"), ("b", "2")]));
    assert_eq!(fields.value(KnownHeader::Te), None);
}

#[test]
fn values_are_not_shown() {
    let shown = format!("{:?}", HeaderBlock::of(&[("Authorization", "Bearer fake")]));
    assert_eq!(shown, r#"["Authorization"]"#);
}
