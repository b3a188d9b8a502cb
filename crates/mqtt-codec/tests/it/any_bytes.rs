//! The laws under bytes made at random. Most random bytes fail at the first one, so some are
//! dressed as packets.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::laws;

/// A first byte that exists, a right length, and a body of fields with odd contents.
fn dressed() -> impl Strategy<Value = Vec<u8>> {
    let first = proptest::sample::select(vec![
        0x10, 0x20, 0x30, 0x32, 0x35, 0x3b, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xa2, 0xb0, 0xc0, 0xd0, 0xe0,
    ]);
    let field = prop_oneof![
        vec(any::<u8>(), 0..4),
        // Short strings behind their length.
        "[a+#/$\0é]{0,5}".prop_map(|text| {
            let mut field = vec![0, text.len() as u8];
            field.extend_from_slice(text.as_bytes());
            field
        }),
        any::<u8>().prop_map(|flags| vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 9]),
    ];
    (first, vec(field, 0..7)).prop_map(|(first, fields)| {
        let body = fields.concat();
        let mut frame = vec![first, body.len() as u8];
        frame.extend_from_slice(&body);
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn of_any_kind_hold_to_the_laws(data in vec(any::<u8>(), 0..80)) {
        laws::frame(&data);
        laws::stream(&data);
        laws::roundtrip(&data);
        laws::topic(&data);
    }

    #[test]
    fn dressed_as_a_packet_hold_to_the_laws(data in dressed()) {
        laws::frame(&data);
        laws::roundtrip(&data);
    }

    #[test]
    fn dressed_as_a_stream_hold_to_the_laws(
        limit: u8,
        frames in vec(dressed(), 0..5),
        cut in 0_usize..60,
    ) {
        let mut stream = vec![limit];
        stream.extend(frames.concat());
        stream.truncate(stream.len().saturating_sub(cut).max(1));
        laws::stream(&stream);
    }

    #[test]
    fn topics_match_as_their_definition_says(topics in "\\$?[ab+#/]{1,7}\n\\$?[ab/]{1,7}") {
        laws::topic(topics.as_bytes());
    }
}
