//! The PROXY protocol, versions 1 and 2: the header by which a balancer in front of a listener tells where a connection
//! comes from. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The most bytes of a header of version 1.
const MAX_V1: usize = 107;
/// The most bytes of a header of version 2 that are borne: the addresses and some further fields.
const MAX_V2: usize = 16 + 1024;
/// Bytes that are needed to tell the versions apart and to know the length of the second.
const LEAST: usize = 16;

/// What the bytes at hand hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// So many bytes in all are needed before more can be said.
    Need(usize),
    /// The header is whole.
    Whole {
        /// Where the connection comes from; `None`: from the balancer itself, or from where no address is known.
        source: Option<SocketAddr>,
        /// Its bytes.
        len: usize,
    },
}

/// These bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no PROXY protocol header")]
pub(crate) struct NoHeader;

/// Reads the header at the start of `bytes`, all that has come of a connection so far.
///
/// # Errors
/// [`NoHeader`], as soon as that is certain.
pub(crate) fn read(bytes: &[u8]) -> Result<Header, NoHeader> {
    let common = bytes.iter().zip(&SIGNATURE).take_while(|(one, other)| one == other).count();
    if common == SIGNATURE.len() {
        return read_v2(bytes);
    }
    if common == bytes.len() {
        return Ok(Header::Need(LEAST));
    }
    read_v1(bytes)
}

fn read_v1(bytes: &[u8]) -> Result<Header, NoHeader> {
    const START: &[u8] = b"PROXY ";
    let n = bytes.len().min(START.len());
    if bytes.get(..n) != START.get(..n) {
        return Err(NoHeader);
    }
    let within = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= MAX_V1 { Err(NoHeader) } else { Ok(Header::Need(bytes.len() + 1)) };
    };
    let line = within.get(..end).and_then(|line| str::from_utf8(line).ok()).ok_or(NoHeader)?;
    let words: Vec<&str> = line.split(' ').collect();
    let len = end + 2;
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(Header::Whole { source: None, len }),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, source_port, target_port] => {
            let address = |text: &str| {
                text.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (*family == "TCP4")).ok_or(NoHeader)
            };
            let port = |text: &str| text.parse::<u16>().map_err(|_| NoHeader);
            let _target = (address(target)?, port(target_port)?);
            let source = SocketAddr::new(address(source)?, port(source_port)?);
            Ok(Header::Whole { source: Some(source), len })
        }
        _ => Err(NoHeader),
    }
}

fn read_v2(bytes: &[u8]) -> Result<Header, NoHeader> {
    let Some((&[version, family, high, low], body)) =
        bytes.get(SIGNATURE.len()..).and_then(|rest| rest.split_first_chunk::<4>())
    else {
        return Ok(Header::Need(LEAST));
    };
    let len = LEAST + usize::from(u16::from_be_bytes([high, low]));
    if version >> 4 != 2 || version & 0x0F > 1 || len > MAX_V2 {
        return Err(NoHeader);
    }
    let Some(body) = body.get(..len - LEAST) else { return Ok(Header::Need(len)) };
    // LOCAL: the balancer's own connection, a health check.
    let local = version & 0x0F == 0;
    let source = match family >> 4 {
        _ if local => None,
        1 => Some(v2_source::<4>(body)?),
        2 => Some(v2_source::<16>(body)?),
        _ => None,
    };
    Ok(Header::Whole { source, len })
}

/// The source in the addresses of version 2: source, target, source port, target port.
fn v2_source<const N: usize>(body: &[u8]) -> Result<SocketAddr, NoHeader> {
    let (source, rest) = body.split_at_checked(N).ok_or(NoHeader)?;
    let port = rest.get(N..).and_then(|rest| rest.first_chunk::<4>()).ok_or(NoHeader)?;
    let ip = match (<[u8; 4]>::try_from(source), <[u8; 16]>::try_from(source)) {
        (Ok(octets), _) => IpAddr::from(Ipv4Addr::from(octets)),
        (_, Ok(octets)) => IpAddr::from(Ipv6Addr::from(octets)).to_canonical(),
        _ => return Err(NoHeader),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    fn source(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("literal"))
    }

    #[test]
    fn both_versions_tell_the_source_in_any_segmentation() {
        let mut v4 = vec![192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0, 80];
        v4.extend([4, 0, 1, 9]); // A further field.
        let v6: Vec<u8> =
            [0x20, 1, 0xD, 0xB8].into_iter().chain([0; 12]).chain([1; 16]).chain([0, 7, 0, 80]).collect();
        let cases = [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\n".to_vec(), source("192.0.2.1:4660")),
            (b"PROXY TCP6 2001:db8:: ::1 7 80\r\n".to_vec(), source("[2001:db8::]:7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever it says\r\n".to_vec(), None),
            (v2(1, 0x11, &v4), source("192.0.2.1:4660")),
            (v2(1, 0x21, &v6), source("[2001:db8::]:7")),
            (v2(0, 0x11, &v4), None),
            (v2(1, 0, &[]), None),
        ];
        for (mut bytes, source) in cases {
            let len = bytes.len();
            bytes.extend_from_slice(b"payload");
            assert_eq!(read(&bytes), Ok(Header::Whole { source, len }));
            for cut in 0..len {
                let Ok(Header::Need(need)) = read(&bytes[..cut]) else { panic!("{cut} of {len}") };
                assert!(cut < need && need <= len.max(LEAST), "{cut}: {need} of {len}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let cases: [&[u8]; 9] = [
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
            b"PROXY UDP4 1.1.1.1 1.1.1.1 1 2\r\n",
            &long,
            &v2(2, 0x11, &[0; 12]),
            &v2(1, 0x11, &[0; 11]),
        ];
        for bytes in cases {
            assert_eq!(read(bytes), Err(NoHeader), "{bytes:?}");
        }
        let mut v1_of_v2 = v2(1, 0x11, &[0; 12]);
        v1_of_v2[12] = 0x11;
        assert_eq!(read(&v1_of_v2), Err(NoHeader));
    }
}
