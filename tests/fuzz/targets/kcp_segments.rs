//! The segments of mKCP: any bytes, read one behind the other; what was read says the same when it is written and read
//! again. The file is private to the transport, so it is built here once more.
#![no_main]
#![allow(dead_code, reason = "a file that is at home elsewhere")]

#[path = "../../../src/transport/kcp"]
mod kcp {
    mod segment;

    use segment::{ACK_OVERHEAD, Body, COMMAND_LEN, DATA_OVERHEAD, Segment};

    pub(crate) fn judge(data: &[u8]) {
        let mut rest = data;
        loop {
            let before = rest;
            let Some(segment) = Segment::read(&mut rest) else {
                assert_eq!(rest, before, "what is no segment is left where it is");
                return;
            };
            let len = match segment.body {
                Body::Data { payload, .. } => DATA_OVERHEAD + payload.len(),
                Body::Ack { numbers, .. } => ACK_OVERHEAD + 4 * numbers.len(),
                Body::Command { .. } => COMMAND_LEN,
            };
            assert_eq!(before.len() - rest.len(), len, "a segment takes its own bytes");
            let mut written = Vec::new();
            segment.write(&mut written);
            // All but the options that mean nothing is as it came.
            assert_eq!((&written[..3], &written[4..]), (&before[..3], &before[4..len]));
            assert_eq!(Segment::read(&mut &written[..]), Some(segment));
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| kcp::judge(data));
