//! Asking servers for the addresses of one name: several servers, lost datagrams, answers too long for UDP.

use super::message::{self, Header, Name, Question, Rcode, TYPE_A, TYPE_AAAA};
use crate::engine::Shard;
use crate::error::{Error, ErrorKind, Stage};
use crate::transport::protect::{self, SocketError, Wishes};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a server may be silent before the next one is asked too. Its late answer still counts.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the whole exchange may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the other address family is waited for once one has addresses.
const GRACE: Duration = Duration::from_millis(250);
/// How often each server is asked.
const ROUNDS: usize = 2;
/// How many servers are used.
const MAX_SERVERS: usize = 4;
/// The largest answer over UDP that is read; ours never announce more.
const MAX_ANSWER: usize = 4096;

/// What the servers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The addresses, IPv6 first; none if the name has none.
    pub(super) addresses: Vec<IpAddr>,
    /// How long they hold, in seconds.
    pub(super) ttl: u32,
}

/// Which address families are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

/// Asks `servers` for the addresses of `name`: A and AAAA at once, the next server after a second or a failure.
///
/// # Errors
/// `ServerUnreachable` at [`Stage::Resolve`] if no server gives an answer, with the last failure as the reason;
/// `ProtectFailed` if the host refuses a socket.
pub(super) async fn ask(
    shard: &Rc<Shard>,
    name: &Name,
    families: Families,
    servers: &[SocketAddr],
) -> Result<Found, Error> {
    let servers = &servers[..servers.len().min(MAX_SERVERS)];
    let mut kinds = Vec::with_capacity(2);
    kinds.extend(families.v6.then_some(TYPE_AAAA));
    kinds.extend(families.v4.then_some(TYPE_A));
    let mut exchange = Exchange {
        shard,
        name,
        pending: servers.iter().copied().cycle().take(servers.len() * ROUNDS).collect(),
        parts: kinds.iter().map(|kind| Part { kind: *kind, answer: None }).collect(),
        attempts: Vec::new(),
        next_at: Instant::now(),
        grace: None,
        failure: None,
    };
    exchange.run().await
}

struct Exchange<'a> {
    shard: &'a Rc<Shard>,
    name: &'a Name,
    /// The servers still to be asked.
    pending: VecDeque<SocketAddr>,
    parts: Vec<Part>,
    attempts: Vec<Attempt>,
    /// When the next server is asked.
    next_at: Instant,
    /// When the other family is given up, once one has addresses.
    grace: Option<Instant>,
    failure: Option<String>,
}

/// One record type and what is known of it.
struct Part {
    kind: u16,
    answer: Option<Found>,
}

/// One server that was asked. Gone when it has answered or failed in everything.
struct Attempt {
    server: SocketAddr,
    socket: UdpSocket,
    /// The ids by part; `None`: nothing is expected any more.
    ids: Vec<Option<u16>>,
}

impl Exchange<'_> {
    async fn run(&mut self) -> Result<Found, Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut buffer = [0; MAX_ANSWER];
        loop {
            if let Some(found) = self.outcome() {
                return Ok(found);
            }
            let now = Instant::now();
            if deadline <= now || self.grace.is_some_and(|grace| grace <= now) {
                return self.ended();
            }
            if self.next_at <= now || self.attempts.is_empty() {
                match self.pending.pop_front() {
                    Some(server) => {
                        self.next_at = now + PATIENCE;
                        self.start(server).await?;
                        continue;
                    }
                    None if self.attempts.is_empty() => return self.ended(),
                    None => self.next_at = deadline,
                }
            }
            let wake = self.grace.unwrap_or(deadline).min(self.next_at).min(deadline);
            tokio::select! {
                biased;
                (at, received) = receive(&self.attempts, &mut buffer) => match received {
                    Ok(len) => self.read(at, buffer.get(..len).unwrap_or_default()).await?,
                    Err(error) => self.give_up(at, &error.to_string()),
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Sends the open questions to a server.
    async fn start(&mut self, server: SocketAddr) -> Result<(), Error> {
        let socket = match protect::udp_socket(self.shard, server).await {
            Ok(socket) => socket,
            Err(SocketError::Io { text, .. }) => {
                self.failure = Some(format!("{}: {text}", server.ip()));
                self.next_at = Instant::now();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut ids = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            if part.answer.is_some() {
                ids.push(None);
                continue;
            }
            let id = self.shard.with_entropy(|entropy| entropy.next_u32() as u16);
            if let Err(error) = socket.send(&message::query(id, self.name, part.kind)).await {
                self.failure = Some(format!("{}: {error}", server.ip()));
                self.next_at = Instant::now();
                return Ok(());
            }
            ids.push(Some(id));
        }
        self.attempts.push(Attempt { server, socket, ids });
        Ok(())
    }

    /// Reads a datagram that came from the server of an attempt. What does not match a question is ignored.
    async fn read(&mut self, at: usize, datagram: &[u8]) -> Result<(), Error> {
        let Some(attempt) = self.attempts.get(at) else { return Ok(()) };
        let Ok(header) = Header::parse(datagram) else { return Ok(()) };
        let Some(index) = attempt.ids.iter().position(|id| *id == Some(header.id)) else { return Ok(()) };
        let Some(kind) = self.parts.get(index).map(|part| part.kind) else { return Ok(()) };
        if !answers(datagram, &header, self.name, kind) {
            return Ok(());
        }
        let server = attempt.server;
        let mut whole = None;
        if header.is_truncated() {
            let query = message::query(header.id, self.name, kind);
            whole = match timeout(PATIENCE * 2, ask_tcp(self.shard, server, &query)).await {
                Ok(Ok(answer))
                    if Header::parse(&answer).is_ok_and(|h| answers(&answer, &h, self.name, kind)) =>
                {
                    Some(answer)
                }
                Ok(Err(error)) if matches!(error.kind, ErrorKind::ProtectFailed) => return Err(error),
                _ => None,
            };
        }
        self.settle(at, index, message::read_answer(whole.as_deref().unwrap_or(datagram)));
        Ok(())
    }

    fn settle(&mut self, at: usize, index: usize, answer: Result<message::Answer, message::MessageError>) {
        let failure = match answer {
            Ok(answer) if answer.rcode == Rcode::NX_DOMAIN => {
                // There is no such name, so there are no records of the other type either.
                for part in self.parts.iter_mut().filter(|part| part.answer.is_none()) {
                    part.answer = Some(Found { addresses: Vec::new(), ttl: 0 });
                }
                return;
            }
            Ok(answer) if answer.rcode == Rcode::NO_ERROR => {
                if !answer.addresses.is_empty() {
                    self.grace.get_or_insert(Instant::now() + GRACE);
                }
                if let Some(part) = self.parts.get_mut(index) {
                    part.answer = Some(Found { addresses: answer.addresses, ttl: answer.ttl });
                }
                None
            }
            Ok(answer) => Some(answer.rcode.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let Some(attempt) = self.attempts.get_mut(at) else { return };
        if let Some(id) = attempt.ids.get_mut(index) {
            *id = None;
        }
        if let Some(failure) = failure {
            self.failure = Some(format!("{}: {failure}", attempt.server.ip()));
            self.next_at = Instant::now();
        }
        let silent = |attempt: &Attempt| attempt.ids.iter().any(Option::is_some);
        self.attempts.retain(silent);
    }

    /// Drops an attempt whose socket failed, as after an ICMP error.
    fn give_up(&mut self, at: usize, why: &str) {
        let attempt = self.attempts.swap_remove(at);
        self.failure = Some(format!("{}: {why}", attempt.server.ip()));
        self.next_at = Instant::now();
    }

    /// The result, once every part has its answer.
    fn outcome(&self) -> Option<Found> {
        self.parts.iter().all(|part| part.answer.is_some()).then(|| self.merged())
    }

    fn merged(&self) -> Found {
        let mut merged = Found { addresses: Vec::new(), ttl: u32::MAX };
        for found in self.parts.iter().filter_map(|part| part.answer.as_ref()) {
            if !found.addresses.is_empty() {
                merged.ttl = merged.ttl.min(found.ttl);
                merged.addresses.extend_from_slice(&found.addresses);
            }
        }
        merged
    }

    /// What is told when no more answers are waited for: the addresses of one family if there are any, else the failure.
    fn ended(&mut self) -> Result<Found, Error> {
        let merged = self.merged();
        if !merged.addresses.is_empty() {
            return Ok(merged);
        }
        let reason = self.failure.take().unwrap_or_else(|| {
            let servers: Vec<_> =
                self.attempts.iter().map(|attempt| attempt.server.ip().to_string()).collect();
            format!("no answer from {} within {} s", servers.join(", "), DEADLINE.as_secs())
        });
        Err(unresolved(reason).with_hint("check the network and its DNS servers"))
    }
}

/// The error of a name that could not be resolved.
pub(super) fn unresolved(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    let kind = ErrorKind::ServerUnreachable { stage: Stage::Resolve };
    Error::new(kind, "a server's name could not be resolved").with_reason(reason)
}

/// Whether a message is the response to our question. A bare error is, if its id is.
fn answers(response: &[u8], header: &Header, name: &Name, kind: u16) -> bool {
    header.is_response()
        && match Question::parse(response) {
            Ok(question) => question.name == *name && question.kind == kind,
            Err(_) => header.is_bare() && header.rcode() != Rcode::NO_ERROR,
        }
}

/// The next datagram of any attempt, and which one it is.
async fn receive(attempts: &[Attempt], buffer: &mut [u8]) -> (usize, io::Result<usize>) {
    poll_fn(|cx| {
        for (at, attempt) in attempts.iter().enumerate() {
            let mut out = ReadBuf::new(buffer);
            if let Poll::Ready(result) = attempt.socket.poll_recv(cx, &mut out) {
                return Poll::Ready((at, result.map(|()| out.filled().len())));
            }
        }
        Poll::Pending
    })
    .await
}

/// Asks one question over TCP.
async fn ask_tcp(shard: &Rc<Shard>, server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, Error> {
    let socket = protect::tcp_connect(shard, server, &Wishes::default()).await.map_err(Error::from)?;
    let broken = |error: io::Error| unresolved(format!("{}: {error}", server.ip()));
    let mut framed = Vec::with_capacity(query.len() + 2);
    framed.extend_from_slice(&u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes());
    framed.extend_from_slice(query);
    write_all(&socket, &framed).await.map_err(broken)?;
    let mut len = [0; 2];
    read_exact(&socket, &mut len).await.map_err(broken)?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    read_exact(&socket, &mut answer).await.map_err(broken)?;
    Ok(answer)
}

async fn write_all(socket: &TcpStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        socket.writable().await?;
        match socket.try_write(data) {
            Ok(n) => data = data.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read_exact(socket: &TcpStream, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        socket.readable().await?;
        match socket.try_read(out) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => out = out.get_mut(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{Config, LogLevel, Policy, Vmesskit};

    const BOTH: Families = Families { v4: true, v6: true };

    /// What a scripted server does with a query.
    #[derive(Clone, Copy)]
    pub(in crate::dns) enum Act {
        /// Answers A with 192.0.2.n and AAAA with 2001:db8::n, both with the TTL.
        Answer(u8, u8),
        /// The same, but for AAAA says nothing.
        AnswerA(u8),
        /// The same after so many milliseconds.
        Late(u64, u8),
        /// Sets the response code.
        Code(u8),
        /// Sets the truncation flag over UDP, and answers over TCP.
        Cut(u8),
        /// First sends answers to other questions and with other ids.
        Forge(u8),
        /// Says nothing.
        Silent,
    }

    /// A shard without anything configured.
    pub(in crate::dns) fn shard() -> Rc<Shard> {
        Shard::for_tests(Config {
            log_level: LogLevel::None,
            inbounds: vec![],
            outbounds: vec![],
            rules: vec![],
            dns_servers: vec![],
            policy: Policy::default(),
            vmesskit: Vmesskit::default(),
        })
    }

    fn respond(query: &[u8], n: u8, ttl: u8) -> Vec<u8> {
        let mut out = query.to_vec();
        (out[2], out[7]) = (0x81, 1);
        let kind = Question::parse(query).expect("our query").kind;
        out.extend_from_slice(&[0xC0, 12, 0, kind as u8, 0, 1, 0, 0, 0, ttl]);
        match kind {
            TYPE_A => out.extend_from_slice(&[0, 4, 192, 0, 2, n]),
            _ => out.extend_from_slice(&[0, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]),
        }
        out
    }

    /// A loopback port for both protocols: one that is free for the first may be taken for the other.
    async fn one_port() -> (tokio::net::TcpListener, UdpSocket) {
        loop {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
            match UdpSocket::bind(tcp.local_addr().expect("address")).await {
                Ok(udp) => return (tcp, udp),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
            }
        }
    }

    /// Runs a scripted server on a loopback port, and counts its queries.
    pub(in crate::dns) async fn server(act: Act) -> (SocketAddr, Rc<std::cell::Cell<usize>>) {
        let (tcp, udp) = one_port().await;
        let addr = udp.local_addr().expect("address");
        let count = Rc::new(std::cell::Cell::new(0));
        let counter = Rc::clone(&count);
        tokio::task::spawn_local(async move {
            let mut bytes = [0; 512];
            loop {
                let (len, from) = udp.recv_from(&mut bytes).await.expect("received");
                counter.set(counter.get() + 1);
                let query = &bytes[..len];
                let kind = Question::parse(query).expect("our query").kind;
                let replies = match act {
                    Act::Answer(n, ttl) => vec![respond(query, n, ttl)],
                    Act::AnswerA(n) if kind == TYPE_A => vec![respond(query, n, 9)],
                    Act::Late(millis, n) => {
                        tokio::time::sleep(Duration::from_millis(millis)).await;
                        vec![respond(query, n, 9)]
                    }
                    Act::Code(code) => {
                        let mut out = query.to_vec();
                        (out[2], out[3]) = (0x81, code);
                        vec![out]
                    }
                    Act::Cut(_) => {
                        let mut out = query.to_vec();
                        out[2] = 0x83;
                        vec![out]
                    }
                    Act::Forge(n) => {
                        let (mut id, mut name, bare) =
                            (respond(query, 66, 9), respond(query, 66, 9), &query[..2]);
                        id[1] ^= 1;
                        name[13] ^= 1;
                        vec![id, name, bare.to_vec(), query.to_vec(), respond(query, n, 9)]
                    }
                    Act::AnswerA(_) | Act::Silent => vec![],
                };
                for reply in replies {
                    udp.send_to(&reply, from).await.expect("sent");
                }
            }
        });
        if let Act::Cut(n) = act {
            tokio::task::spawn_local(async move {
                loop {
                    let (socket, _) = tcp.accept().await.expect("accepted");
                    let mut len = [0; 2];
                    read_exact(&socket, &mut len).await.expect("a length");
                    let mut query = vec![0; u16::from_be_bytes(len).into()];
                    read_exact(&socket, &mut query).await.expect("a query");
                    let answer = respond(&query, n, 30);
                    write_all(&socket, &(answer.len() as u16).to_be_bytes()).await.expect("sent");
                    write_all(&socket, &answer).await.expect("sent");
                }
            });
        }
        (addr, count)
    }

    /// Asks servers that act so, on a clock that jumps; returns how long it took, too.
    fn run(families: Families, acts: &[Act]) -> (Result<Found, Error>, Duration, Vec<usize>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.expect("a runtime"), async {
            let mut servers = Vec::new();
            for act in acts {
                servers.push(server(*act).await);
            }
            let addrs: Vec<_> = servers.iter().map(|(addr, _)| *addr).collect();
            let name = Name::from_text("server.example").expect("legal");
            let start = Instant::now();
            let result = ask(&shard(), &name, families, &addrs).await;
            (result, start.elapsed(), servers.iter().map(|(_, count)| count.get()).collect())
        })
    }

    fn found(v6: &[u8], v4: &[u8], ttl: u32) -> Found {
        let v6 = v6.iter().map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(*n)]));
        let v4 = v4.iter().map(|n| IpAddr::from([192, 0, 2, *n]));
        Found { addresses: v6.chain(v4).collect(), ttl }
    }

    #[test]
    fn both_families_are_asked_at_once() {
        let (result, took, counts) = run(BOTH, &[Act::Answer(1, 60), Act::Answer(2, 60)]);
        assert_eq!((result, counts), (Ok(found(&[1], &[1], 60)), vec![2, 0]));
        assert!(took < PATIENCE);
        let (result, _, counts) = run(Families { v4: true, v6: false }, &[Act::Answer(1, 60)]);
        assert_eq!((result, counts), (Ok(found(&[], &[1], 60)), vec![1]));
    }

    #[test]
    fn a_silent_server_costs_a_second() {
        let (result, took, counts) = run(BOTH, &[Act::Silent, Act::Answer(2, 60)]);
        assert_eq!((result, counts), (Ok(found(&[2], &[2], 60)), vec![2, 2]));
        assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
    }

    #[test]
    fn a_failing_server_costs_nothing() {
        let (result, took, _) = run(BOTH, &[Act::Code(2), Act::Code(5), Act::Answer(3, 60)]);
        assert_eq!(result, Ok(found(&[3], &[3], 60)));
        assert!(took < PATIENCE, "{took:?}");
    }

    #[test]
    fn a_late_answer_counts() {
        let (result, took, _) = run(Families { v4: true, v6: false }, &[Act::Late(1500, 1), Act::Silent]);
        assert_eq!(result, Ok(found(&[], &[1], 9)));
        assert!(took < PATIENCE * 2, "{took:?}");
    }

    #[test]
    fn one_family_is_enough_after_a_short_wait() {
        let (result, took, _) = run(BOTH, &[Act::AnswerA(1)]);
        assert_eq!(result, Ok(found(&[], &[1], 9)));
        assert!(took >= GRACE && took < PATIENCE, "{took:?}");
    }

    #[test]
    fn a_name_that_does_not_exist_is_no_failure() {
        let (result, took, counts) = run(BOTH, &[Act::Code(3), Act::Answer(2, 60)]);
        assert!(result.expect("an answer").addresses.is_empty() && took < PATIENCE && counts[1] == 0);
    }

    #[test]
    fn a_cut_answer_is_asked_for_over_tcp() {
        assert_eq!(run(BOTH, &[Act::Cut(4)]).0, Ok(found(&[4], &[4], 30)));
    }

    #[test]
    fn forged_answers_are_ignored() {
        assert_eq!(run(BOTH, &[Act::Forge(5)]).0, Ok(found(&[5], &[5], 9)));
    }

    #[test]
    fn silence_everywhere_ends_after_five_seconds() {
        let (result, took, counts) = run(BOTH, &[Act::Silent, Act::Silent]);
        let error = result.expect_err("nobody answers");
        assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Resolve });
        assert!(error.reason.contains("no answer from 127.0.0.1"), "{error}");
        assert!(took >= DEADLINE && took < DEADLINE + PATIENCE, "{took:?}");
        assert_eq!(counts, [4, 4], "every server twice, two questions each");
    }

    #[test]
    fn failure_everywhere_ends_at_once_with_its_reason() {
        let (result, took, _) = run(BOTH, &[Act::Code(2)]);
        assert!(result.expect_err("a failure").reason.contains("SERVFAIL") && took < PATIENCE);
    }

    #[test]
    fn nobody_listening_ends_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let name = Name::from_text("server.example").expect("legal");
        let result = runtime.block_on(ask(&shard(), &name, BOTH, &[closed.expect("bind")]));
        assert!(result.expect_err("refused").reason.contains("refused"));
    }

    #[test]
    fn without_servers_there_is_an_error() {
        assert!(run(BOTH, &[]).0.is_err());
    }
}
