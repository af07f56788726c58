//! A UDP flow on a VMess connection: one chunk a datagram, both ways.

use super::super::{Carrier, Datagram, Datagrams, StreamError};
use super::client::Sealed;
use super::server::Served;
use super::{Cut, End, Witness};
use crate::addr::Target;
use crate::buffer::Buffer;
use crate::engine::Shard;
use crate::vmess::client::Connection;
use crate::vmess::{datagram, server};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// The most datagrams that wait for a blocked carrier; the oldest goes first.
const MAX_WAITING: usize = 64;
/// How long a datagram waits for one.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// A UDP flow through a VMess server.
pub(crate) type SealedDatagrams<C> = Packets<Sealed<C>>;
/// A UDP flow of a VMess client. What it receives is the client's, and its remote is always the flow's target.
pub(crate) type ServerDatagrams<C> = Packets<Served<C>>;

/// A UDP flow on one end of a VMess connection, bound to one target.
pub(crate) struct Packets<E> {
    end: E,
    target: Target,
    /// When each waiting datagram was queued, oldest first.
    queued: VecDeque<Instant>,
}

impl<C: Carrier> SealedDatagrams<C> {
    /// Joins a connected carrier and a new VMess connection whose command is UDP to `target`.
    pub(crate) fn new(
        carrier: C,
        shard: Rc<Shard>,
        connection: Connection,
        witness: Rc<dyn Witness>,
        target: Target,
    ) -> Self {
        let end = Sealed::new(carrier, shard, connection, witness, Cut::Datagram);
        Self { end, target, queued: VecDeque::new() }
    }
}

impl<C: Carrier> ServerDatagrams<C> {
    /// Joins a carrier and the connection that its client asked for, whose command is UDP to `target`; `early` is what was
    /// read behind the request header, in a buffer that nobody else refers to.
    pub(crate) fn new_server(
        carrier: C,
        shard: Rc<Shard>,
        connection: server::Connection,
        early: Buffer,
        target: Target,
    ) -> Self {
        let end = Served::new(carrier, shard, connection, early, Cut::Datagram);
        Self { end, target, queued: VecDeque::new() }
    }

    /// Moves what is queued on its way, and sends nothing if that is nothing: the response header waits for the first
    /// datagram.
    pub(crate) fn poll_flush_queued(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let sealing = &self.end.core().sealing;
        if sealing.waiting() == 0 && !sealing.is_blocked() {
            return Poll::Ready(self.end.core().check());
        }
        self.poll_flush(cx)
    }

    /// Ends the flow properly, after everything queued.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.end.poll_finish(cx)
    }

    /// Cuts the flow off.
    pub(crate) fn abort(&mut self) {
        self.end.abort();
    }
}

impl<E: End> Packets<E> {
    fn drop_oldest(&mut self) {
        self.queued.pop_front();
        if self.end.core_mut().sealing.drop_oldest() {
            self.count_dropped();
        }
    }

    fn count_dropped(&self) {
        self.end.core().shard.shared.stats.dropped.fetch_add(1, Relaxed);
    }
}

impl<E: End> Datagrams for Packets<E> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        let data = ready!(self.end.poll_recv(cx))?;
        Poll::Ready(Ok(data.map(|data| Datagram { data, remote: self.target.clone() })))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let sealing = &self.end.core().sealing;
        if sealing.waiting() > 0 || sealing.is_blocked() {
            return self.poll_flush(cx);
        }
        Poll::Ready(self.end.core().check())
    }

    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError> {
        self.end.core().check()?;
        let len = datagram.data.len();
        let bound_elsewhere = datagram.remote != self.target;
        if bound_elsewhere || !datagram::fits(len) || len > self.end.core().sealing.limit() {
            if len > 0 {
                self.count_dropped();
            }
            return Ok(());
        }
        if self.queued.len() >= MAX_WAITING {
            self.drop_oldest();
        }
        self.queued.push_back(Instant::now());
        self.end.core_mut().sealing.queue(datagram.data);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let now = Instant::now();
        while self.queued.front().is_some_and(|queued| now - *queued >= MAX_WAIT) {
            self.drop_oldest();
        }
        let result = self.end.poll_flush(cx);
        let sealed = self.queued.len().saturating_sub(self.end.core().sealing.waiting());
        self.queued.drain(..sealed);
        result
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.end.core().carrier.local_ip()
    }
}
