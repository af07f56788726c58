//! WebSocket's frames: any bytes in any cuts, read where they lie, against the same bytes at once; and payload that is
//! framed, cut and read again. The files are private to the transport, so they are built here once more.
#![no_main]
#![allow(dead_code, reason = "files that are at home elsewhere")]

#[path = "../../../src/transport/ws"]
mod ws {
    mod deframe;
    mod frame;

    use deframe::{Deframer, End, Role};
    use frame::{Head, MAX_CONTROL, MAX_HEAD, Mask, Opcode};
    use vmesskit_fuzz::{Cuts, Input};

    pub(crate) fn judge(data: &[u8]) {
        let mut input = Input(data);
        let cuts = input.byte();
        let role = if input.flag() { Role::Client } else { Role::Server };
        assert_eq!(read(role, input.0, cuts), read(role, input.0, 0), "the cuts do not matter");
        let key = (role == Role::Server).then(|| [input.byte(), input.byte(), input.byte(), input.byte()]);
        let piece = 1 + usize::from(input.short());
        let wire: Vec<u8> = input.0.chunks(piece).flat_map(|piece| frame(key, piece)).collect();
        assert_eq!(read(role, &wire, cuts), (input.0.to_vec(), None, None, true));
    }

    /// The payload, the last ping, how it ended, and whether the carrier may end there.
    fn read(role: Role, wire: &[u8], cuts: u8) -> (Vec<u8>, Option<Vec<u8>>, Option<End>, bool) {
        let (mut deframer, mut got, mut start) = (Deframer::new(role), Vec::new(), 0);
        for end in Cuts::ends(cuts, wire.len()) {
            let mut piece = wire[start..end].to_vec();
            start = end;
            let payload = deframer.open(&mut piece);
            got.extend_from_slice(&piece[..payload]);
        }
        let (between, end) = (deframer.is_between_messages(), deframer.end());
        let ping = deframer.take_ping();
        assert!(ping.as_ref().is_none_or(|ping| ping.len() <= MAX_CONTROL));
        (got, ping, end, between)
    }

    /// A message of `payload`.
    fn frame(key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let mut head = [0; MAX_HEAD];
        let len = Head::whole(Opcode::Binary, payload.len() as u64, key).write(&mut head);
        let mut wire = head[..len].to_vec();
        wire.resize(len + payload.len(), 0);
        assert_eq!(Mask::new(key.unwrap_or_default()).copy(payload, &mut wire[len..]), payload.len());
        wire
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| ws::judge(data));
