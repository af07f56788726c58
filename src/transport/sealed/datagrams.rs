//! A UDP flow through a VMess server: one chunk a datagram, both ways.

use super::super::{Carrier, Datagram, Datagrams, StreamError};
use super::{Sealed, Sealing, Witness};
use crate::addr::Target;
use crate::engine::Shard;
use crate::vmess::client::Connection;
use crate::vmess::datagram;
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

/// A UDP flow through a VMess server, bound to one target.
pub(crate) struct SealedDatagrams<C> {
    sealed: Sealed<C>,
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
        let sealed = Sealed::new(carrier, shard, connection, witness, Sealing::datagrams, false);
        Self { sealed, target, queued: VecDeque::new() }
    }

    fn drop_oldest(&mut self) {
        self.queued.pop_front();
        if self.sealed.sealing.drop_oldest() {
            self.sealed.shard.shared.stats.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl<C: Carrier> Datagrams for SealedDatagrams<C> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        let data = ready!(self.sealed.poll_recv(cx))?;
        Poll::Ready(Ok(data.map(|data| Datagram { data, remote: self.target.clone() })))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.sealed.sealing.waiting() > 0 || self.sealed.sealing.is_blocked() {
            return self.poll_flush(cx);
        }
        Poll::Ready(self.sealed.check())
    }

    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError> {
        self.sealed.check()?;
        let len = datagram.data.len();
        let bound_elsewhere = datagram.remote != self.target;
        if bound_elsewhere || !datagram::fits(len) || len > self.sealed.sealing.limit() {
            self.sealed.shard.shared.stats.dropped.fetch_add(u64::from(len > 0), Relaxed);
            return Ok(());
        }
        if self.queued.len() >= MAX_WAITING {
            self.drop_oldest();
        }
        self.queued.push_back(Instant::now());
        self.sealed.sealing.queue(datagram.data);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let now = Instant::now();
        while self.queued.front().is_some_and(|queued| now - *queued >= MAX_WAIT) {
            self.drop_oldest();
        }
        let result = self.sealed.poll_flush(cx);
        let sealed = self.queued.len().saturating_sub(self.sealed.sealing.waiting());
        self.queued.drain(..sealed);
        result
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.sealed.carrier.local_ip()
    }
}
