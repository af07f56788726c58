//! DNS messages (RFC 1035, RFC 6891), as far as forwarding and looking up addresses need them.
//!
//! Everything reads from the caller's bytes, never beyond them, and follows compression pointers backwards only, so that
//! no message makes a parser loop or panic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The length of a message's header in bytes.
pub const HEADER_LEN: usize = 12;
/// The largest UDP answer that a forwarded query may ask for, in bytes: it passes every path unfragmented, and a VMess
/// server without a larger buffer (V2Ray) does not cut it.
pub const MAX_UDP_ANSWER: u16 = 1232;
/// Record type A: an IPv4 address.
pub const TYPE_A: u16 = 1;
/// Record type CNAME: another name for the same host.
pub const TYPE_CNAME: u16 = 5;
/// Record type AAAA: an IPv6 address.
pub const TYPE_AAAA: u16 = 28;

const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const MAX_NAME: usize = 255;
/// How many CNAMEs of one answer are followed.
const MAX_ALIASES: usize = 16;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const OPCODE_MASK: u16 = 0x7800;

/// Why a message cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message ends inside a field.
    #[error("the message is cut short")]
    Truncated,
    /// A name is longer than 255 bytes, has an unknown label type, or points forwards.
    #[error("a name in the message is malformed")]
    Name,
    /// The message has no question, or several.
    #[error("the message does not hold one question")]
    Questions,
    /// A query was expected and this is a response, or the other way round.
    #[error("a query was expected, or a response")]
    Direction,
}

/// A response code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcode(pub u8);

impl Rcode {
    /// No error.
    pub const NO_ERROR: Self = Self(0);
    /// The server could not read the query.
    pub const FORM_ERR: Self = Self(1);
    /// The server failed to find an answer.
    pub const SERV_FAIL: Self = Self(2);
    /// The name does not exist.
    pub const NX_DOMAIN: Self = Self(3);
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("NOERROR"),
            1 => f.write_str("FORMERR"),
            2 => f.write_str("SERVFAIL"),
            3 => f.write_str("NXDOMAIN"),
            4 => f.write_str("NOTIMP"),
            5 => f.write_str("REFUSED"),
            code => write!(f, "RCODE {code}"),
        }
    }
}

/// The first twelve bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The id that joins a response to its query.
    pub id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl Header {
    /// Reads the header of a message.
    ///
    /// # Errors
    /// [`MessageError::Truncated`].
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(message);
        Ok(Self {
            id: reader.u16()?,
            flags: reader.u16()?,
            questions: reader.u16()?,
            answers: reader.u16()?,
            authorities: reader.u16()?,
            additionals: reader.u16()?,
        })
    }

    /// Whether this is a response.
    pub const fn is_response(&self) -> bool {
        self.flags & FLAG_RESPONSE != 0
    }

    /// Whether the server has cut the answer, so that it must be asked for over TCP.
    pub const fn is_truncated(&self) -> bool {
        self.flags & FLAG_TRUNCATED != 0
    }

    /// The response code.
    pub const fn rcode(&self) -> Rcode {
        Rcode((self.flags & 0x000F) as u8)
    }

    /// Whether this is an ordinary query or the response to one (opcode 0).
    pub const fn is_standard(&self) -> bool {
        self.flags & OPCODE_MASK == 0
    }

    /// Whether the message repeats no question at all, as some servers' errors do.
    pub const fn is_bare(&self) -> bool {
        self.questions == 0
    }

    fn records(&self) -> u32 {
        u32::from(self.answers) + u32::from(self.authorities) + u32::from(self.additionals)
    }
}

/// A domain name in wire form, in lower case: length-prefixed labels and the empty root label.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Makes a name from text such as `example.com`; a trailing dot is allowed. `None` if a label is empty or longer
    /// than 63 bytes, or the whole is longer than 255.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
            wire.push(len);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then(|| Self(wire.into()))
    }

    /// The bytes on the wire, without compression.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest: &[u8] = &self.0;
        let mut first = true;
        while let Some((&len, tail)) = rest.split_first().filter(|(len, _)| **len != 0) {
            let Some((label, tail)) = tail.split_at_checked(usize::from(len)) else { break };
            if !std::mem::take(&mut first) {
                f.write_str(".")?;
            }
            write!(f, "{}", label.escape_ascii())?;
            rest = tail;
        }
        if first { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What a message asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name asked about.
    pub name: Name,
    /// The record type.
    pub kind: u16,
    /// The class, 1 for the internet.
    pub class: u16,
}

impl Question {
    /// Reads the one question of a query or response.
    ///
    /// # Errors
    /// [`MessageError::Questions`] unless there is exactly one; [`MessageError::Truncated`], [`MessageError::Name`].
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        Self::read(message).map(|(question, _)| question)
    }

    /// The question and the offset of the first byte behind it.
    fn read(message: &[u8]) -> Result<(Self, usize), MessageError> {
        if Header::parse(message)?.questions != 1 {
            return Err(MessageError::Questions);
        }
        let mut reader = Reader::at(message, HEADER_LEN);
        let question = Self { name: reader.name()?, kind: reader.u16()?, class: reader.u16()? };
        Ok((question, reader.at))
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_wire());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&self.class.to_be_bytes());
    }
}

/// What a response says about one name's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub rcode: Rcode,
    /// The addresses of the name asked for, CNAMEs followed.
    pub addresses: Vec<IpAddr>,
    /// How long the addresses hold, in seconds: the least of all records used. 0 without addresses.
    pub ttl: u32,
    /// The name at the end of the CNAMEs, if there were any.
    pub alias: Option<Name>,
}

/// Makes a recursive query for `kind` records of `name`.
pub fn query(id: u16, name: &Name, kind: u16) -> Vec<u8> {
    let mut out = header(id, FLAG_RECURSION_DESIRED, 1);
    Question { name: name.clone(), kind, class: CLASS_IN }.write(&mut out);
    out
}

/// Makes the response that tells the sender of a query that it cannot be answered (SERVFAIL).
pub fn serv_fail(id: u16, question: &Question) -> Vec<u8> {
    let flags =
        FLAG_RESPONSE | FLAG_RECURSION_DESIRED | FLAG_RECURSION_AVAILABLE | u16::from(Rcode::SERV_FAIL.0);
    let mut out = header(id, flags, 1);
    question.write(&mut out);
    out
}

/// Replaces a message's id. A message shorter than an id stays as it is.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

/// Lowers the UDP size that a query announces (EDNS) to [`MAX_UDP_ANSWER`], and returns its question.
///
/// # Errors
/// [`MessageError::Direction`] for a response; otherwise the parse error of the first malformed record.
pub fn clamp_udp_size(query: &mut [u8]) -> Result<Question, MessageError> {
    let header = Header::parse(query)?;
    if header.is_response() {
        return Err(MessageError::Direction);
    }
    let (question, end) = Question::read(query)?;
    let mut size_at = None;
    let mut reader = Reader::at(query, end);
    for _ in 0..header.records() {
        let record = reader.record()?;
        if record.kind == TYPE_OPT && record.class > MAX_UDP_ANSWER {
            size_at = Some(record.class_at);
        }
    }
    if let Some(field) = size_at.and_then(|at| query.get_mut(at..at + 2)) {
        field.copy_from_slice(&MAX_UDP_ANSWER.to_be_bytes());
    }
    Ok(question)
}

/// Reads the addresses that a response gives for its own question, which must be about A or AAAA records.
///
/// # Errors
/// [`MessageError::Direction`] for a query; otherwise the parse error of the first malformed record. A truncated answer
/// whose records end early is read as far as it goes.
pub fn read_answer(response: &[u8]) -> Result<Answer, MessageError> {
    let header = Header::parse(response)?;
    if !header.is_response() {
        return Err(MessageError::Direction);
    }
    let (question, end) = Question::read(response)?;
    let mut records = Vec::new();
    let mut reader = Reader::at(response, end);
    for _ in 0..header.answers {
        match reader.record() {
            Ok(record) => records.push(record),
            Err(MessageError::Truncated) if header.is_truncated() => break,
            Err(error) => return Err(error),
        }
    }
    let (owner, mut ttl) = follow_aliases(response, &question.name, &records)?;
    let mut addresses = Vec::new();
    for record in records.iter().filter(|r| r.kind == question.kind && r.class == CLASS_IN && r.name == owner)
    {
        if let Some(address) = record.address() {
            ttl = ttl.min(record.ttl);
            addresses.push(address);
        }
    }
    Ok(Answer {
        rcode: header.rcode(),
        ttl: if addresses.is_empty() { 0 } else { ttl },
        addresses,
        alias: (owner != question.name).then_some(owner),
    })
}

/// The name at the end of the CNAMEs that start at `name`, and the least of their TTLs.
fn follow_aliases(message: &[u8], name: &Name, records: &[Record<'_>]) -> Result<(Name, u32), MessageError> {
    let mut owner = name.clone();
    let mut ttl = u32::MAX;
    for _ in 0..MAX_ALIASES {
        let Some(record) = records.iter().find(|r| r.kind == TYPE_CNAME && r.name == owner) else { break };
        owner = Reader::at(message, record.data_at).name()?;
        ttl = ttl.min(record.ttl);
    }
    Ok((owner, ttl))
}

fn header(id: u16, flags: u16, questions: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + 64);
    for field in [id, flags, questions, 0, 0, 0] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out
}

/// One resource record, its data still in the message.
struct Record<'a> {
    name: Name,
    kind: u16,
    class: u16,
    class_at: usize,
    ttl: u32,
    data: &'a [u8],
    data_at: usize,
}

impl Record<'_> {
    fn address(&self) -> Option<IpAddr> {
        match self.kind {
            TYPE_A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.data).ok()?).into()),
            TYPE_AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.data).ok()?).into()),
            _ => None,
        }
    }
}

/// Reads fields from the front of a message's rest.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    const fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    const fn at(message: &'a [u8], at: usize) -> Self {
        Self { message, at }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], MessageError> {
        let end = self.at.checked_add(n).ok_or(MessageError::Truncated)?;
        let bytes = self.message.get(self.at..end).ok_or(MessageError::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        self.take(N)?.try_into().map_err(|_| MessageError::Truncated)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads a name, compressed or not, and stands behind its first piece afterwards.
    fn name(&mut self) -> Result<Name, MessageError> {
        let mut wire = [0; MAX_NAME];
        let mut len = 0;
        let mut piece = Self::at(self.message, self.at);
        let mut lowest = self.at;
        let mut behind = None;
        loop {
            let [size] = piece.array()?;
            match size {
                0..=63 => {
                    let label = piece.take(usize::from(size))?;
                    let room = wire.get_mut(len..len + 1 + label.len()).ok_or(MessageError::Name)?;
                    let (prefix, text) = room.split_at_mut(1);
                    prefix.fill(size);
                    text.copy_from_slice(label);
                    text.make_ascii_lowercase();
                    len += 1 + label.len();
                    if size == 0 {
                        break;
                    }
                }
                0xC0..=0xFF => {
                    let [low] = piece.array()?;
                    let to = usize::from(u16::from_be_bytes([size & 0x3F, low]));
                    behind.get_or_insert(piece.at);
                    // Every jump goes further back than all before it, so the walk ends.
                    if to >= lowest {
                        return Err(MessageError::Name);
                    }
                    (lowest, piece.at) = (to, to);
                }
                _ => return Err(MessageError::Name),
            }
        }
        self.at = behind.unwrap_or(piece.at);
        Ok(Name(wire.get(..len).ok_or(MessageError::Name)?.into()))
    }

    fn record(&mut self) -> Result<Record<'a>, MessageError> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class_at = self.at;
        let class = self.u16()?;
        // A TTL with the top bit set counts as zero (RFC 2181, section 8).
        let ttl = self.u32().map(|ttl| if ttl > i32::MAX as u32 { 0 } else { ttl })?;
        let len = self.u16()?;
        let data_at = self.at;
        let data = self.take(usize::from(len))?;
        Ok(Record { name, kind, class, class_at, ttl, data, data_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    fn name(text: &str) -> Name {
        Name::from_text(text).expect("a legal name")
    }

    /// A response to `www.example.com` A: a CNAME to `example.com`, written as a pointer, and two addresses.
    fn response() -> Vec<u8> {
        let mut out = query(7, &name("WWW.example.com"), TYPE_A);
        out[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        out[6..8].copy_from_slice(&3_u16.to_be_bytes());
        out.extend_from_slice(&[0xC0, 12, 0, 5, 0, 1, 0, 0, 1, 0, 0, 2, 0xC0, 16]);
        out.extend_from_slice(&[0xC0, 16, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        out.extend_from_slice(&[0xC0, 16, 0, 1, 0, 1, 0, 0, 0, 99, 0, 4, 192, 0, 2, 2]);
        out
    }

    /// A query with an EDNS record that announces `size`.
    fn edns_query(size: u16) -> Vec<u8> {
        let mut out = query(7, &name("example.com"), TYPE_AAAA);
        out[11] = 1;
        out.extend_from_slice(&[0, 0, 41]);
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
        out
    }

    #[test]
    fn a_query_reads_back() {
        let bytes = query(0x1234, &name("Example.COM."), TYPE_A);
        let header = Header::parse(&bytes).expect("header");
        assert!(header.id == 0x1234 && !header.is_response() && header.is_standard());
        let question = Question::parse(&bytes).expect("question");
        assert_eq!(
            (question.name.to_string().as_str(), question.kind, question.class),
            ("example.com", 1, 1)
        );
        assert_eq!(bytes.len(), HEADER_LEN + 13 + 4);
    }

    #[test]
    fn illegal_names_are_refused() {
        for text in ["", ".", "a..b", ".a", &"x".repeat(64), &format!("{}a", "abcdefg.".repeat(32))] {
            assert_eq!(Name::from_text(text), None, "{text}");
        }
        assert!(Name::from_text(&"abcdefg.".repeat(31)).is_some());
    }

    #[test]
    fn addresses_are_found_behind_an_alias() {
        let answer = read_answer(&response()).expect("answer");
        assert_eq!(answer.addresses, [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]);
        assert_eq!((answer.ttl, answer.rcode), (60, Rcode::NO_ERROR));
        assert_eq!(answer.alias, Some(name("example.com")));
        assert_eq!(read_answer(&query(1, &name("a.b"), 1)), Err(MessageError::Direction));
    }

    #[test]
    fn records_of_other_names_are_not_answers() {
        let mut bytes = response();
        let at = bytes.len() - 15;
        bytes[at] = 12; // the last address now belongs to www.example.com, which is an alias
        assert_eq!(read_answer(&bytes).expect("answer").addresses, [IpAddr::from([192, 0, 2, 1])]);
    }

    #[test]
    fn a_loop_of_aliases_or_pointers_ends() {
        let mut bytes = query(7, &name("a.b"), TYPE_A);
        bytes[2] = 0x81;
        bytes[7] = 1;
        bytes.extend_from_slice(&[0xC0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xC0, 12]);
        assert!(read_answer(&bytes).expect("a.b is its own alias").addresses.is_empty());
        let own = bytes.len() - 14;
        bytes[own + 1] = u8::try_from(own).expect("short");
        assert_eq!(read_answer(&bytes), Err(MessageError::Name), "a pointer to itself");
    }

    #[test]
    fn a_cut_answer_is_read_as_far_as_it_goes() {
        let mut bytes = response();
        bytes.truncate(bytes.len() - 3);
        assert_eq!(read_answer(&bytes), Err(MessageError::Truncated));
        bytes[2] |= 0x02;
        assert_eq!(read_answer(&bytes).expect("marked as cut").addresses.len(), 1);
    }

    #[test]
    fn the_announced_size_is_only_lowered() {
        for (announced, left) in [(4096, 1232), (1232, 1232), (512, 512)] {
            let mut bytes = edns_query(announced);
            let question = clamp_udp_size(&mut bytes).expect("a query");
            assert_eq!((bytes, question.kind), (edns_query(left), TYPE_AAAA));
        }
        assert_eq!(clamp_udp_size(&mut response()), Err(MessageError::Direction));
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let question = Question::parse(&edns_query(512)).expect("question");
        let bytes = serv_fail(99, &question);
        let header = Header::parse(&bytes).expect("header");
        assert!(header.is_response() && header.id == 99 && header.rcode() == Rcode::SERV_FAIL);
        assert_eq!(Question::parse(&bytes), Ok(question));
        assert!(read_answer(&bytes).expect("answer").addresses.is_empty());
    }

    #[test]
    fn no_mutation_panics() {
        let mut entropy = SeededEntropy::new(1);
        let seeds = [response(), edns_query(4096), query(1, &name("localhost"), TYPE_A)];
        let mut read = 0;
        for round in 0..60_000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..=entropy.below(4) {
                let at = entropy.below(bytes.len() as u32) as usize;
                match entropy.below(3) {
                    0 => bytes[at] = entropy.next_u32() as u8,
                    1 => bytes[at] ^= 1 << entropy.below(8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            read += usize::from(read_answer(&bytes).is_ok());
            if let Ok(question) = Question::parse(&bytes) {
                let wire = question.name.as_wire();
                assert!(wire.last() == Some(&0) && wire.len() <= MAX_NAME);
            }
            let len = bytes.len();
            let _ = clamp_udp_size(&mut bytes);
            set_id(&mut bytes, 5);
            assert_eq!(bytes.len(), len);
        }
        assert!(read > 1000, "the mutations leave some answers readable: {read}");
    }
}
