//! SNTP: a question to a time server and the judgement of its answer (RFC 4330, the client's part). Pure: clocks and
//! randomness are arguments.
//!
//! A packet is 48 bytes: `leap, version, mode (1) stratum (1) poll (1) precision (1) root delay (4) root dispersion (4)
//! reference (4) and five times of 8 bytes: reference, originate, receive, transmit`. A time is seconds since 1900 and a
//! fraction, 32 bits each.

/// Bytes of a packet without extensions.
pub const LEN: usize = 48;

/// Leap 0, version 4, mode 3 (client).
const CLIENT: u8 = 0b00_100_011;
/// The mode of a server's answer.
const SERVER_MODE: u8 = 4;
/// The leap indicator of a server that does not know the time.
const UNSYNCHRONISED: u8 = 3;
/// The highest stratum of a server that does.
const LAST_STRATUM: u8 = 15;
/// From 1900 to 1970, in seconds.
const TO_1970: i64 = 2_208_988_800;
/// Seconds of one era: times with the top bit clear are of the one that begins in 2036.
const ERA: i64 = 1 << 32;

/// Why an answer says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SntpError {
    /// It is shorter than a packet.
    #[error("the answer is shorter than a packet")]
    Truncated,
    /// It is no server's answer of a known version.
    #[error("the answer is not a server's")]
    Malformed,
    /// It answers another question, or none.
    #[error("the answer is to another question")]
    Unrelated,
    /// The server asks to be left alone ("kiss of death").
    #[error("the server asks to be left alone")]
    Refused,
    /// The server does not know the time itself.
    #[error("the server does not know the time")]
    Unsynchronised,
}

/// The question. `nonce` is random: it stands where our own time could be, which is nobody's business, and comes back in
/// the answer.
pub fn query(nonce: u64) -> [u8; LEN] {
    let mut packet = [0; LEN];
    packet[0] = CLIENT;
    packet[LEN - 8..].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// Reads the answer to the question with `nonce`: the middle between its receipt and the answer's sending, on the
/// server's clock, in milliseconds since 1970.
///
/// # Errors
/// [`SntpError`]. After one that is no refusal the true answer may still come.
pub fn answer(packet: &[u8], nonce: u64) -> Result<i64, SntpError> {
    let packet: &[u8; LEN] = packet.first_chunk().ok_or(SntpError::Truncated)?;
    let [first, stratum, ..] = *packet;
    let (leap, version, mode) = (first >> 6, first >> 3 & 7, first & 7);
    if mode != SERVER_MODE || !(1..=4).contains(&version) {
        return Err(SntpError::Malformed);
    }
    let (_, times) = packet.split_at(24);
    let (originate, times) = times.split_first_chunk().ok_or(SntpError::Truncated)?;
    let (receive, times) = times.split_first_chunk().ok_or(SntpError::Truncated)?;
    let transmit = times.first_chunk().ok_or(SntpError::Truncated)?;
    if u64::from_be_bytes(*originate) != nonce {
        return Err(SntpError::Unrelated);
    }
    if stratum == 0 {
        return Err(SntpError::Refused);
    }
    if leap == UNSYNCHRONISED || stratum > LAST_STRATUM || *transmit == [0; 8] {
        return Err(SntpError::Unsynchronised);
    }
    let (receive, transmit) = (millis(*receive), millis(*transmit));
    // A server that leaves the receipt out, or turns time back, is believed in what it sent last.
    let between = transmit.checked_sub(receive).filter(|between| (0..=10_000).contains(between));
    Ok(transmit - between.unwrap_or(0) / 2)
}

/// How fast our clock is, in milliseconds, if it showed `sent` when the question left and `received` when the answer came:
/// the way there and the way back count as equally long.
pub const fn skew(server: i64, sent: i64, received: i64) -> i64 {
    let middle = sent.saturating_add(received.saturating_sub(sent) / 2);
    middle.saturating_sub(server)
}

/// A packet's time in milliseconds since 1970.
fn millis(time: [u8; 8]) -> i64 {
    let time = u64::from_be_bytes(time);
    let seconds = (time >> 32) as i64;
    let era = if seconds < ERA / 2 { ERA } else { 0 };
    let fraction = ((time & 0xffff_ffff) * 1000) >> 32;
    (seconds + era - TO_1970) * 1000 + fraction as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 0x0123_4567_89ab_cdef;
    /// 2026-01-01.
    const NOW: i64 = 1_767_225_600;

    fn time(unix_millis: i64) -> [u8; 8] {
        let seconds = unix_millis.div_euclid(1000) + TO_1970;
        let fraction = (unix_millis.rem_euclid(1000) << 32) / 1000 + 1;
        (((seconds as u64) << 32) | fraction as u64).to_be_bytes()
    }

    fn packet(first: u8, stratum: u8, nonce: u64, receive: [u8; 8], transmit: [u8; 8]) -> Vec<u8> {
        let mut packet = vec![first, stratum];
        packet.resize(24, 0);
        packet.extend(nonce.to_be_bytes());
        packet.extend(receive);
        packet.extend(transmit);
        packet
    }

    fn good(receive: i64, transmit: i64) -> Vec<u8> {
        packet(0b00_100_100, 2, NONCE, time(receive), time(transmit))
    }

    #[test]
    fn the_time_is_the_middle_of_the_servers_two() {
        let at = NOW * 1000;
        assert_eq!(answer(&good(at, at + 40), NONCE), Ok(at + 20));
        assert_eq!(answer(&good(at + 40, at), NONCE), Ok(at), "it runs backwards");
        assert_eq!(answer(&packet(0x24, 1, NONCE, [0; 8], time(at)), NONCE), Ok(at), "no receipt");
        let in_2040 = 2_209_000_000_000;
        assert_eq!(answer(&good(in_2040, in_2040), NONCE), Ok(in_2040), "the next era");
        let mut long = good(at, at);
        long.extend([0; 20]);
        assert_eq!(answer(&long, NONCE), Ok(at), "extensions are ignored");
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let at = time(NOW * 1000);
        let all = good(NOW * 1000, NOW * 1000);
        for len in 0..LEN {
            assert_eq!(answer(&all[..len], NONCE), Err(SntpError::Truncated), "{len} bytes");
        }
        let judge =
            |first, stratum, nonce, transmit| answer(&packet(first, stratum, nonce, at, transmit), NONCE);
        assert_eq!(judge(0x24, 0, NONCE, at), Err(SntpError::Refused), "kiss of death");
        assert_eq!(judge(0x24, 0, NONCE ^ 1, at), Err(SntpError::Unrelated), "a forged one is none");
        assert_eq!(judge(0x24, 2, 0, at), Err(SntpError::Unrelated));
        assert_eq!(judge(0x24, 2, NONCE, [0; 8]), Err(SntpError::Unsynchronised));
        assert_eq!(judge(0x24, 16, NONCE, at), Err(SntpError::Unsynchronised));
        assert_eq!(judge(0b11_100_100, 2, NONCE, at), Err(SntpError::Unsynchronised));
        assert_eq!(answer(&query(NONCE), NONCE), Err(SntpError::Malformed), "our own question");
        assert_eq!(judge(0b00_101_100, 2, NONCE, at), Err(SntpError::Malformed), "version 5");
    }

    #[test]
    fn the_skew_is_ours_less_the_servers() {
        assert_eq!(skew(10_000, 10_000, 10_000), 0);
        assert_eq!(skew(10_000, 130_000, 130_200), 120_100, "we are fast");
        assert_eq!(skew(130_000, 10_000, 10_200), -119_900, "we are slow");
        assert_eq!(skew(i64::MIN, i64::MAX, i64::MAX), i64::MAX, "nothing overflows");
    }
}
