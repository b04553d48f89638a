use super::*;
use proptest::prelude::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 7];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(FRAME_END);
    frame
}

fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    payload.extend(flags.to_be_bytes());
    payload.extend(properties);
    frame(HEADER_FRAME, &payload)
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

fn long_of(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// What comes out when the bytes come in pieces of this size.
fn sieve(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut buffer, mut out, mut room) = (Buffer::default(), Vec::new(), [0; 100]);
    for piece in bytes.chunks(piece) {
        buffer.bytes.extend(piece);
        buffer.look();
        loop {
            match buffer.take(&mut room) {
                0 => break,
                taken => out.extend(&room[..taken]),
            }
        }
    }
    out
}

fn harmful() -> Vec<Vec<u8>> {
    let mut nested = vec![];
    for _ in 0..3000 {
        nested = long_of(&[&short(b"")[..], b"F", &nested].concat());
    }
    let nested = long_of(&[&short(b"")[..], b"F", &nested].concat());
    let wide = long_of(&[&short(b"k")[..], b"S", &long_of(&[b'x'; 40_000])].concat());
    vec![
        header(0x8000, &short(b"\xff\xfe")),
        header(0x2000, &long_of(&[&short(b"\xff")[..], b"V"].concat())),
        header(0x2000, &long_of(&[&short(b"k")[..], b"?"].concat())),
        header(0x2000, &long_of(&[&short(b"k")[..], b"I\0"].concat())),
        header(0x2000, &nested[..nested.len().min(15_000)]),
        header(0x2000, &nested),
        header(0x2000, &wide),
        header(0x0001, &[]),
        header(0x8000, &[]),
        header(0, b"rest"),
        frame(HEADER_FRAME, &[]),
    ]
}

#[test]
fn harmful_headers_are_replaced_and_the_rest_passes() {
    let good = header(
        0xb8c0,
        &[
            short(b"application/json"),
            long_of(&[&short(b"k")[..], b"A", &long_of(b"t\x01V")].concat()),
            vec![2, 0],
            short(b"id"),
            vec![0; 8],
        ]
        .concat(),
    );
    let method = frame(1, b"anything at all");
    let body = frame(3, &[b'x'; 5000]);
    for bad in harmful() {
        let stream = [&method[..], &good, &bad, &body, &method].concat();
        let replaced = replacement([0, 7], &bad[FRAME_HEAD..bad.len() - 1]);
        let wanted = [&method[..], &good, &replaced, &body, &method].concat();
        for piece in [1, 7, 1000, 1 << 20] {
            assert!(sieve(&stream, piece) == wanted, "{:?} by {piece}", &bad[..40.min(bad.len())]);
        }
        let again = &replaced[FRAME_HEAD..replaced.len() - 1];
        assert!(is_harmless(again));
    }
}

#[test]
fn another_protocol_passes() {
    assert_eq!(sieve(b"AMQP\0\0\x09\x01", 3), b"AMQP\0\0\x09\x01");
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300), flags in any::<u16>()) {
        let _ = sieve(&noise, 11);
        let stream = header(flags, &noise);
        let out = sieve(&stream, 13);
        // Whatever went in, one header frame comes out that is harmless.
        prop_assert!(is_harmless(&out[FRAME_HEAD..out.len() - 1]));
    }
}
