//! A session's end for its user: a stream, or a UDP flow.

use super::super::stream::{Datagram, Datagrams, Stream, StreamError};
use super::port::Port;
use super::{Link, Outgoing};
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::mux::frame::MAX_STREAM_DATA;
use crate::transport::queue::allowance;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// The most payload of one session that waits in the carrier's queue.
const MAX_OUTGOING: usize = 64 * 1024;
/// How much an app may go on sending to a session that the server has ended, and that goes nowhere, before it has to wait.
const MAX_WASTED: usize = 64 * 1024;

/// A session on a carrier. Dropping it ends it: as an abort if its user had not finished.
pub(crate) struct Session {
    link: Rc<Link>,
    pub(super) port: Rc<Port>,
    /// Whether we opened it.
    ours: bool,
    /// Whether its opening is on its way, or has been read.
    begun: bool,
    /// Whether our direction has ended.
    finished: bool,
    /// Whether our `End` is on its way, or none is due any more.
    closed: bool,
    wasted: usize,
}

impl Session {
    pub(super) fn new(link: Rc<Link>, port: Rc<Port>, ours: bool) -> Self {
        Self { link, port, ours, begun: !ours, finished: false, closed: false, wasted: 0 }
    }

    /// Makes a UDP flow of it. `target` is where its datagrams go, and come from, that name no address; `named`: ours
    /// name theirs.
    pub(crate) fn into_datagrams(self, target: Target, named: bool) -> DatagramSession {
        if named && self.ours {
            self.port.set_xudp();
        }
        DatagramSession { session: self, target, named }
    }

    /// Tells the peer that the session is over, unless it has said so itself.
    fn close(&mut self, error: bool) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if self.port.ended().is_none() && self.begun {
            self.link.queue(Outgoing::End { port: Rc::clone(&self.port), error });
        }
        self.link.forget(&self.port);
    }

    /// Gives back what it holds.
    fn clear(&self) {
        self.port.clear();
        self.relieve();
    }

    fn relieve(&self) {
        if self.port.full.get() && self.port.has_room() {
            self.port.full.set(false);
            self.link.relieve();
        }
    }

    fn poll_room(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        match self.port.ended() {
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(())) if self.wasted < MAX_WASTED => Poll::Ready(Ok(())),
            Some(Ok(())) => Poll::Pending,
            None if self.port.outgoing.get() < MAX_OUTGOING.min(allowance(&self.link.shard.pool)) => {
                Poll::Ready(Ok(()))
            }
            None => {
                self.port.watch_writer(cx);
                Poll::Pending
            }
        }
    }

    fn queue(&mut self, data: Buffer, remote: Option<Target>) -> Result<(), StreamError> {
        match self.port.ended() {
            Some(Err(error)) => Err(error),
            // A client that has ended its session reads no answer; a server's end is no reason to reset an app.
            Some(Ok(())) if !self.ours => Err(StreamError::Reset),
            Some(Ok(())) => {
                self.wasted = self.wasted.saturating_add(data.len());
                Ok(())
            }
            None => {
                self.begun = true;
                self.port.outgoing.set(self.port.outgoing.get() + data.len());
                self.link.queue(Outgoing::Data { port: Rc::clone(&self.port), data, remote });
                Ok(())
            }
        }
    }

    /// Sends what opens the session, if that has not gone with data.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.link.queue(Outgoing::Head(Rc::clone(&self.port)));
        }
    }
}

impl Stream for Session {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        let piece = self.port.poll_pop(cx);
        self.relieve();
        piece.map_ok(|piece| piece.map(|(data, _)| data))
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(poll_fn(|cx| {
            if matches!(self.port.ended(), Some(Err(_))) {
                return Poll::Ready(());
            }
            self.port.watch_reader(cx);
            Poll::Pending
        }))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.poll_room(cx)
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        if data.is_empty() { Ok(()) } else { self.queue(data, None) }
    }

    fn send_limit(&self) -> usize {
        MAX_STREAM_DATA
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(Err(error)) = self.port.ended() {
            return Poll::Ready(Err(error));
        }
        self.begin();
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_flush(cx))?;
        self.finished = true;
        if !self.ours {
            self.close(false);
            self.port.end(Ok(()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.port.outgoing.get() == 0 || self.port.ended().is_some() {
            return Poll::Ready(());
        }
        self.port.watch_writer(cx);
        Poll::Pending
    }

    fn half_closes(&self) -> bool {
        !self.ours
    }

    fn abort(&mut self) {
        self.port.aborted.set(true);
        self.close(true);
        self.port.end(Err(StreamError::Closed));
        self.clear();
    }

    fn answered(&self) -> bool {
        self.link.answered.get()
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.link.local_ip.get()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let finished = self.finished || self.port.network == Network::Udp;
        self.close(!finished);
        self.clear();
    }
}

/// A session that carries datagrams.
pub(crate) struct DatagramSession {
    session: Session,
    target: Target,
    named: bool,
}

impl DatagramSession {
    /// A way to send on it for those who do not own it.
    pub(crate) fn outlet(&self) -> Outlet {
        Outlet { link: Rc::clone(&self.session.link), port: Rc::clone(&self.session.port) }
    }
}

impl Datagrams for DatagramSession {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        let piece = ready!(self.session.port.poll_pop(cx))?;
        Poll::Ready(Ok(piece.map(|(data, remote)| {
            // Where a flow is bound to one target, that is who answers, whatever the server calls it.
            let named = remote.filter(|_| self.named);
            Datagram { data, remote: named.unwrap_or_else(|| self.target.clone()) }
        })))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.session.poll_room(cx)
    }

    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError> {
        let Datagram { data, remote } = datagram;
        let elsewhere = !self.named && remote != self.target;
        if data.is_empty() || data.len() > self.session.port.longest_datagram() || elsewhere {
            self.session.link.lose();
            return Ok(());
        }
        self.session.queue(data, self.named.then_some(remote))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(match self.session.port.ended() {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        })
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.session.link.local_ip.get()
    }
}

/// Sends a session's datagrams. It keeps nothing open: once the session has ended, what is sent is dropped.
#[derive(Clone)]
pub(crate) struct Outlet {
    link: Rc<Link>,
    port: Rc<Port>,
}

impl Outlet {
    /// Sends a datagram that came from `remote`. One that is too long, or comes while too much waits, is dropped and
    /// counted.
    pub(crate) fn send(&self, data: Buffer, remote: Target) {
        let limit = MAX_OUTGOING.min(allowance(&self.link.shard.pool));
        let fits = (1..=self.port.longest_datagram()).contains(&data.len());
        if !fits || self.port.ended().is_some() || self.port.outgoing.get() >= limit {
            return self.link.lose();
        }
        self.port.outgoing.set(self.port.outgoing.get() + data.len());
        self.link.queue(Outgoing::Data { port: Rc::clone(&self.port), data, remote: Some(remote) });
    }
}
