//! The SOCKS5 inbound's handshake and datagrams. Its two pure files are private to the inbound, so they are built here
//! once more.
#![no_main]
#![allow(dead_code, unused_imports, reason = "files that are at home elsewhere")]

use vmesskit::addr;

#[path = "../../../src/engine/inbound/socks"]
mod socks {
    mod handshake;
    mod wire;

    use handshake::{Accounts, Handshake, MAX_MESSAGE, Step};
    use vmesskit_fuzz::{Cuts, Input};
    use wire::{Address, DatagramHeader, parse_datagram};

    pub(crate) fn judge(data: &[u8]) {
        let mut input = Input(data);
        let (cuts, open) = (input.byte(), input.flag());
        let accounts = match open {
            true => Accounts::default(),
            false => Accounts::new(&[("user".into(), "pass".into())]),
        };
        assert_eq!(run(&accounts, input.0, cuts), run(&accounts, input.0, 0), "the cuts do not matter");
        if let Address::Target(_, len) | Address::BadName(len) = Address::parse(input.0) {
            assert!(0 < len && len <= input.0.len());
            assert!((0..len).all(|cut| Address::parse(&input.0[..cut]) == Address::More));
        }
        if let Some((target, at)) = parse_datagram(input.0) {
            assert!(at < input.0.len());
            let header = DatagramHeader::new(&target).expect("what was read can be written");
            let again = [header.as_bytes(), &input.0[at..]].concat();
            assert_eq!(parse_datagram(&again), Some((target, header.as_bytes().len())));
        }
    }

    /// What was sent, and what it ended with; as the session runs it.
    fn run(accounts: &Accounts, wire: &[u8], cuts: u8) -> (Vec<u8>, Option<Step>, usize) {
        let (mut handshake, mut sent, mut start) = (Handshake::new(accounts), Vec::new(), 0);
        for end in Cuts::ends(cuts, wire.len()) {
            loop {
                let have = &wire[start..end];
                match handshake.step(have) {
                    Step::More => {
                        assert!(have.len() < MAX_MESSAGE, "no message is longer");
                        break;
                    }
                    Step::Send { consumed, reply } => {
                        assert!(0 < consumed && consumed <= have.len());
                        sent.extend_from_slice(&reply);
                        start += consumed;
                    }
                    step => {
                        if let Step::Asked { consumed, .. } = &step {
                            assert!(0 < *consumed && *consumed <= have.len());
                        }
                        return (sent, Some(step), start);
                    }
                }
            }
        }
        (sent, None, start)
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| socks::judge(data));
