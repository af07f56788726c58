//! The handshake: rustls' state machine between a carrier's bytes, until the keys can move to the record layer.

use super::super::Carrier;
use super::super::accept::send_away;
use super::super::http1::write_all;
use super::Scratch;
use super::carrier::TlsCarrier;
use super::records::RecordError;
use crate::engine::HostLink;
use crate::error::Error;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use std::future::poll_fn;
use std::io;
use std::task::ready;

/// How much one read asks for.
const PIECE: usize = 4096;
/// The most bytes of a peer that wait to be understood: a chain of certificates is far below.
const MOST: usize = 128 * 1024;

/// Why a handshake failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// TLS itself: the peer was told by an alert, or has told us.
    Tls(rustls::Error),
    /// The carrier below.
    Io(io::Error),
    /// Our own threads.
    Ours(Error),
}

impl From<rustls::Error> for Failed {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<RecordError> for Failed {
    fn from(error: RecordError) -> Self {
        Self::Tls(rustls::Error::General(error.to_string()))
    }
}

/// What is left of rustls behind the handshake.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// The secrets of a direction, and the number of its next record.
pub(super) type Secrets = (u64, ConnectionTrafficSecrets);

impl Kernel {
    /// The next secrets that we seal with.
    pub(super) fn update_tx(&mut self) -> Result<Secrets, rustls::Error> {
        match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        }
    }

    /// The next secrets that the peer seals with.
    pub(super) fn update_rx(&mut self) -> Result<Secrets, rustls::Error> {
        match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        }
    }

    /// Takes a session ticket up.
    pub(super) fn take_ticket(&mut self, ticket: &[u8]) -> Result<(), rustls::Error> {
        match self {
            Self::Client(kernel) => kernel.handle_new_session_ticket(ticket),
            Self::Server(_) => Err(rustls::Error::General("a ticket from a client".into())),
        }
    }
}

/// Which end of a handshake we are.
pub(super) trait Side: Sized {
    /// rustls' own data for it.
    type Data;
    /// Whether a peer that we refuse must be read from for a while.
    const LINGERS: bool;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn is_handshaking(&self) -> bool;
    /// Whether a message waits to be encoded.
    fn has_output(&self) -> bool;
    fn alpn(&self) -> Option<&[u8]>;
    fn finish(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const LINGERS: bool = false;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn has_output(&self) -> bool {
        self.wants_write()
    }

    fn alpn(&self) -> Option<&[u8]> {
        self.alpn_protocol()
    }

    fn finish(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Client(kernel)))
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const LINGERS: bool = true;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn has_output(&self) -> bool {
        self.wants_write()
    }

    fn alpn(&self) -> Option<&[u8]> {
        self.alpn_protocol()
    }

    fn finish(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Server(kernel)))
    }
}

/// A handshake under way: bytes in, bytes out.
pub(super) struct Handshake<S> {
    side: S,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Payload that came with the peer's last message.
    early: Vec<u8>,
    /// Whether the peer has ended its direction already.
    ended: bool,
}

/// How far a handshake has come.
enum Progress {
    /// The peer's turn.
    Waits,
    Done,
}

impl<S: Side> Handshake<S> {
    /// Nothing has been said.
    pub(super) const fn new(side: S) -> Self {
        Self { side, incoming: Vec::new(), outgoing: Vec::new(), early: Vec::new(), ended: false }
    }

    /// Goes on with what has come. After an error an alert waits to be sent, if it is our error.
    fn advance(&mut self) -> Result<Progress, rustls::Error> {
        loop {
            let over = !self.side.is_handshaking();
            let UnbufferedStatus { mut discard, state } = self.side.process(&mut self.incoming);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.incoming.drain(..discard.min(self.incoming.len()));
                    return Err(error);
                }
            };
            let progress = match state {
                ConnectionState::EncodeTlsData(message) => {
                    encode(message, &mut self.outgoing)?;
                    None
                }
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    None
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        self.early.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    None
                }
                ConnectionState::PeerClosed if over => {
                    self.ended = true;
                    None
                }
                ConnectionState::WriteTraffic(_) if over => Some(Progress::Done),
                ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake => Some(Progress::Waits),
                _ => return Err(rustls::Error::HandshakeNotComplete),
            };
            self.incoming.drain(..discard.min(self.incoming.len()));
            match progress {
                // Some servers may write before the handshake is over; we do not.
                Some(Progress::Waits) if !self.side.is_handshaking() => {}
                Some(progress) => return Ok(progress),
                None => {}
            }
        }
    }

    /// Makes the alert that is due after an error.
    fn make_alert(&mut self) {
        // No further than that: rustls would judge the same bytes again. They stay, since it keeps places in them.
        while self.side.has_output() {
            let Ok(ConnectionState::EncodeTlsData(message)) = self.side.process(&mut self.incoming).state
            else {
                return;
            };
            if encode(message, &mut self.outgoing).is_err() {
                return;
            }
        }
    }
}

fn encode<D>(mut message: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> Result<(), rustls::Error> {
    let old = outgoing.len();
    let mut room = 512;
    loop {
        outgoing.resize(old + room, 0);
        match message.encode(outgoing.get_mut(old..).unwrap_or_default()) {
            Ok(len) => {
                outgoing.truncate(old + len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size }))
                if required_size > room =>
            {
                room = required_size;
            }
            Err(error) => return Err(rustls::Error::General(error.to_string())),
        }
    }
}

/// Makes a handshake to its end; the connection and the protocol that was agreed on. `desk` has the threads on which the
/// peer's messages are judged, if that may block.
///
/// # Errors
/// [`Failed`]; the peer has been told why as far as TLS has a word for it.
pub(super) async fn run<C: Carrier, S: Side + Send + 'static>(
    mut carrier: C,
    mut handshake: Handshake<S>,
    scratch: &Scratch,
    desk: Option<&HostLink>,
) -> Result<(TlsCarrier<C>, Option<Vec<u8>>), Failed> {
    loop {
        let advanced = match desk {
            Some(desk) if !handshake.incoming.is_empty() => {
                let judge = move || {
                    let advanced = handshake.advance();
                    (handshake, advanced)
                };
                let advanced;
                (handshake, advanced) = desk.work(judge).await.map_err(Failed::Ours)?;
                advanced
            }
            _ => handshake.advance(),
        };
        match advanced {
            Ok(Progress::Done) => break,
            Ok(Progress::Waits) => {}
            Err(error) => {
                handshake.make_alert();
                let told = write_all(&mut carrier, &handshake.outgoing).await;
                if S::LINGERS && told.is_ok() {
                    send_away(carrier).await;
                }
                return Err(error.into());
            }
        }
        write_all(&mut carrier, &handshake.outgoing).await?;
        handshake.outgoing.clear();
        read(&mut carrier, &mut handshake.incoming).await?;
    }
    let Handshake { side, incoming, outgoing, early, ended } = handshake;
    let alpn = side.alpn().map(<[u8]>::to_vec);
    let (secrets, kernel) = side.finish()?;
    let tls13 = matches!(&kernel, Kernel::Client(kernel) if is_13(kernel.protocol_version()))
        || matches!(&kernel, Kernel::Server(kernel) if is_13(kernel.protocol_version()));
    let mut connection = TlsCarrier::new(carrier, kernel, secrets, tls13, scratch.clone())?;
    connection.begin_with(incoming, early, ended);
    // In TLS 1.3 nobody waits for our last message: it leaves with the first payload.
    connection.hold_back(outgoing);
    if !tls13 {
        poll_fn(|cx| connection.poll_flush(cx)).await?;
    }
    Ok((connection, alpn))
}

fn is_13(version: rustls::ProtocolVersion) -> bool {
    version == rustls::ProtocolVersion::TLSv1_3
}

/// Reads some more.
async fn read<C: Carrier>(carrier: &mut C, incoming: &mut Vec<u8>) -> Result<(), Failed> {
    let old = incoming.len();
    if old > MOST {
        return Err(Failed::Tls(rustls::Error::General("a handshake without an end".into())));
    }
    incoming.resize(old + PIECE, 0);
    let read = poll_fn(|cx| {
        ready!(carrier.poll_read_ready(cx))?;
        carrier.poll_read(cx, incoming.get_mut(old..).unwrap_or_default())
    })
    .await;
    incoming.truncate(old + read.as_ref().map_or(0, |n| *n));
    match read? {
        0 => Err(Failed::Io(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}
