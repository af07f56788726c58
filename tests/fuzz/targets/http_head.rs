//! Heads of HTTP/1.1 as strangers send them, to the disguise as HTTP, WebSocket and upgrades, in any segmentation. The
//! files are private to the transports, so they are built here once more.
#![no_main]
#![allow(dead_code, reason = "files that are at home elsewhere")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/transport"]
mod transport {
    mod carrier;
    mod http1;

    pub(crate) use carrier::Carrier;

    use http1::{
        Fields, HeadError, MAX_HEAD, head_len, parse_request, parse_response, read_head, write_head,
    };
    use std::future::Future;
    use std::io::{self, IoSlice};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use vmesskit_fuzz::{Cuts, Input};

    /// A carrier that brings an input in pieces, and then ends.
    struct Pieces<'a> {
        left: &'a [u8],
        cuts: Cuts,
    }

    impl Carrier for Pieces<'_> {
        fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_read(&mut self, _: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
            if self.left.is_empty() || out.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let n = self.cuts.next(self.left.len()).min(out.len());
            let (piece, left) = self.left.split_at(n);
            out[..n].copy_from_slice(piece);
            self.left = left;
            Poll::Ready(Ok(n))
        }

        fn poll_write(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            unreachable!("nothing is written")
        }

        fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn abort(&mut self) {}
    }

    pub(crate) fn judge(data: &[u8]) {
        let mut input = Input(data);
        let cuts = input.byte();
        let wire = input.0;
        let mut carrier = Pieces { left: wire, cuts: Cuts::new(cuts) };
        let read = {
            let reading = pin!(read_head(&mut carrier));
            match reading.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(read) => read,
                Poll::Pending => unreachable!("a carrier that never waits"),
            }
        };
        match (head_len(wire), read) {
            (Ok(Some(len)), Ok((head, behind))) => {
                assert!(len <= MAX_HEAD && head == wire[..len]);
                assert_eq!(behind, wire[len..wire.len() - carrier.left.len()], "nothing is lost behind it");
                parse(&head);
            }
            (Ok(None), Err(error)) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
            (Err(HeadError::TooLong), Err(error)) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            (found, read) => panic!("{found:?}, read {read:?}"),
        }
    }

    /// Takes a head apart as both ends would.
    fn parse(head: &[u8]) {
        if let Ok(request) = parse_request(head) {
            assert!(!request.method.is_empty() && !request.target.is_empty());
            check(&request.fields);
            let again =
                write_head(&format!("{} {} HTTP/1.1", request.method, request.target), [("Host", "h")]);
            let again = parse_request(&again).expect("what was read can be written");
            assert_eq!((again.method, again.target), (request.method, request.target));
        }
        if let Ok(response) = parse_response(head) {
            assert!(response.status < 1000);
            check(&response.fields);
        }
    }

    fn check(fields: &Fields) {
        for name in ["Host", "connection", "SEC-WEBSOCKET-PROTOCOL", ""] {
            assert!(fields.get(name).is_some() || !fields.lists(name, "upgrade"));
        }
    }
}

fuzz_target!(|data: &[u8]| transport::judge(data));
