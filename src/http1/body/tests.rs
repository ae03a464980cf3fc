use super::*;

/// Decodes `input` in pieces of `size` bytes. Returns the data, and the index after a complete body.
fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, Option<usize>), &'static str> {
    let mut decoder = BodyDecoder::of_request(BodyLength::Chunked);
    let (mut body, mut decoded_bytes) = (Vec::new(), 0);
    let mut buffer = [0; 64];
    for mut piece in input.chunks(size) {
        while !piece.is_empty() {
            let (used, filled) = decoder.decode(piece, &mut buffer)?;
            body.extend_from_slice(&buffer[..filled]);
            decoded_bytes += used;
            if matches!(decoder, BodyDecoder::Ended) {
                return Ok((body, Some(decoded_bytes)));
            }
            piece = &piece[used..];
        }
    }
    Ok((body, None))
}

#[test]
fn a_body_is_decoded_in_pieces_of_any_size() {
    let input = b"5\r\nhello\r\n1;a=\"b\"\r\n,\r\n00A\r\n wide world\r\n0\r\nTrailer: x\r\n\r\nGET";
    // " wide world" has eleven bytes, one more than 00A.
    assert!(decode(input, input.len()).is_err());
    let input = b"5\r\nhello\r\n1;a=\"b\"\r\n,\r\n00B\r\n wide world\r\n0\r\nTrailer: x\r\n\r\nGET";
    for size in 1..=input.len() {
        let (body, end) = decode(input, size).unwrap();
        assert_eq!(body, b"hello, wide world", "pieces of {size}");
        assert_eq!(end, Some(input.len() - 3));
    }
}

#[test]
fn every_prefix_of_a_body_is_incomplete() {
    let input = b"3\r\nabc\r\n0\r\n\r\n";
    for length in 0..input.len() {
        assert_eq!(
            decode(&input[..length], 64).unwrap().1,
            None,
            "{length} bytes"
        );
    }
}

#[test]
fn ambiguous_and_malformed_chunks_are_rejected() {
    for input in [
        "\r\n",
        "x\r\n",
        "5 \r\nhello",
        " 5\r\n",
        "0x5\r\n",
        "-1\r\n",
        "+1\r\n",
        "5\nhello",
        "5\rhello",
        "5\r\nhelloX",
        "5\r\nhello\n",
        "5\r\nhello\r\r",
        "5;a\nhello",
        "5;\0\r\n",
        "00000000000000001\r\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\nA: b\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nA\0: b\r\n",
        ";\r\n",
    ] {
        assert!(decode(input.as_bytes(), 64).is_err(), "{input:?}");
        assert!(
            decode(input.as_bytes(), 1).is_err(),
            "{input:?} byte by byte"
        );
    }
}

#[test]
fn the_largest_chunk_size_is_accepted() {
    let (body, end) = decode(b"FFFFFFFFFFFFFFFF\r\nab", 64).unwrap();
    assert_eq!((body.as_slice(), end), (&b"ab"[..], None));
}

#[test]
fn framing_overhead_is_limited() {
    let endless = [b"1;".as_slice(), &[b'x'; MAX_CHUNK_LINE]].concat();
    assert!(decode(&endless, 512).is_err());
    let many = format!("1;{}\r\na\r\n", "x".repeat(500)).repeat(40);
    assert!(decode(many.as_bytes(), 512).is_err());
    let trailers = format!("0\r\n{}", "A: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
    assert!(decode(trailers.as_bytes(), 512).is_err());
    // The data of small chunks does not count.
    let small = "1\r\na\r\n".repeat(100_000);
    assert_eq!(decode(small.as_bytes(), 4096).unwrap().0.len(), 100_000);
}

#[test]
fn data_before_a_malformed_chunk_is_returned() {
    let input = b"5\r\nhello\r\nnonsense";
    let mut body = BodyDecoder::of_response(BodyLength::Chunked);
    let mut buffer = [0; 64];
    let (used, filled) = body.decode(input, &mut buffer).unwrap();
    assert_eq!(&buffer[..filled], b"hello");
    let rest = body.decode(&input[used..], &mut buffer);
    assert_eq!(rest, Err("an empty chunk size"));
}

#[test]
fn a_malformed_chunk_of_a_request_is_an_error_at_once() {
    let mut body = BodyDecoder::of_request(BodyLength::Chunked);
    for _ in 0..2 {
        let decoded = body.decode(b"5\r\nhello\r\nnonsense", &mut [0; 64]);
        assert_eq!(decoded, Err("an empty chunk size"));
    }
}

#[test]
fn a_body_is_decoded_into_a_small_buffer_in_pieces_of_any_size() {
    let chunks = b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n";
    for (length, input) in [
        (BodyLength::Known(12), b"hello, world".as_slice()),
        (BodyLength::Chunked, chunks),
    ] {
        for size in 1..=input.len() {
            let mut body = BodyDecoder::of_response(length);
            let mut decoded = Vec::new();
            let mut rest = input;
            while !rest.is_empty() {
                let mut buffer = [0; 4];
                let piece = &rest[..size.min(rest.len())];
                let (used, filled) = body.decode(piece, &mut buffer).unwrap();
                assert!(used > 0);
                decoded.extend_from_slice(&buffer[..filled]);
                rest = &rest[used..];
            }
            assert_eq!(decoded, b"hello, world");
            assert!(matches!(body, BodyDecoder::Ended));
        }
    }
}
