//! Heads of HTTP/1.1, a client's and a server's: any bytes in any cuts, as an upgrade reads them. The file is private to
//! the transports, so it is built here once more.
#![no_main]
#![allow(dead_code, reason = "a file that is at home elsewhere")]

#[path = "../../../src/transport/http1"]
mod http1 {
    mod head;

    use head::{HeadError, MAX_HEAD, head_end, parse_request, parse_response, write_head};
    use vmesskit_fuzz::{Cuts, Input};

    const STARTS: [&[u8]; 2] = [b"", b"HTTP/1."];

    pub(crate) fn judge(data: &[u8]) {
        let mut input = Input(data);
        let (cuts, start) = (input.byte(), STARTS[usize::from(input.flag())]);
        let limit = 16 + usize::from(input.short()) % MAX_HEAD;
        let wire = input.0;
        let found = find(wire, cuts, start, limit);
        let at_once = wire.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        match found {
            Ok(Some(len)) => {
                assert!(len <= limit && wire.starts_with(start) && at_once == Some(len));
                take_apart(&wire[..len]);
            }
            Ok(None) => assert!(at_once.is_none() && wire.len() < limit),
            Err(HeadError::TooLong) => assert!(at_once.is_none_or(|len| len > limit) && wire.len() >= limit),
            Err(HeadError::Malformed) => {
                assert!(wire.iter().zip(start).any(|(byte, expected)| byte != expected))
            }
        }
    }

    /// As it is found when it comes in pieces.
    fn find(wire: &[u8], cuts: u8, start: &[u8], limit: usize) -> Result<Option<usize>, HeadError> {
        let mut seen = 0;
        for end in Cuts::ends(cuts, wire.len()) {
            match head_end(&wire[..end], seen, start, limit) {
                Ok(None) => seen = end,
                over => return over,
            }
        }
        Ok(None)
    }

    /// What is read of a head can be written and read again.
    fn take_apart(head: &[u8]) {
        if let Ok(request) = parse_request(head) {
            assert!(!request.fields.lists("no such field", ""));
            let first = format!("{} {} HTTP/1.1", request.method, request.target);
            let names: Vec<&str> = request.fields.names().collect();
            let fields = names.iter().map(|name| (*name, request.fields.get(name).expect("it is named")));
            let again = parse_request(&write_head(&first, fields)).map(|again| (again.method, again.target));
            assert_eq!(again, Ok((request.method, request.target)));
        }
        if let Ok(response) = parse_response(head) {
            assert!(response.status < 1000);
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| http1::judge(data));
