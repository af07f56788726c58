//! A server's end: its answer waits for the first payload, and its end is the carrier's own.

use super::super::{Carrier, Stream, StreamError};
use super::{Core, Cut, End};
use crate::buffer::Buffer;
use crate::engine::Shard;
use crate::vmess::chunk::Opener;
use crate::vmess::server::Connection;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// What a server's streams and datagram flows share.
pub(crate) struct Served<C>(Core<C, Opener>);

impl<C: Carrier> Served<C> {
    /// Joins a carrier and the connection that its client asked for; `early` is what was read behind the request header.
    pub(super) fn new(carrier: C, shard: Rc<Shard>, connection: Connection, early: Buffer, cut: Cut) -> Self {
        let Connection { header, uplink, downlink } = connection;
        let mut core = Core::new(carrier, shard, header, downlink, uplink, cut);
        core.opening.begin_with(early);
        Self(core)
    }

    /// Ends our direction: everything queued, the terminating chunk, and at once the carrier's own end, since sing-box and
    /// mihomo clients wait for that one.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.check()?;
        let mut result = ready!(self.0.poll_finish(cx));
        if result.is_ok() {
            result = ready!(self.0.carrier.poll_close(cx)).map_err(StreamError::from);
        }
        Poll::Ready(result.map_err(|error| self.fail(error)))
    }

    /// Cuts the stream off. The client is told who has cut it, if it has not been told yet: without a response header
    /// it would have to take us for a server that does not know it, when it is the target that cannot be reached.
    pub(super) fn abort(&mut self) {
        let core = &mut self.0;
        if core.failure.is_none() && core.sealing.has_head() {
            let _ = core.poll_flush(&mut Context::from_waker(Waker::noop()));
        }
        core.abort();
    }
}

impl<C: Carrier> End for Served<C> {
    type Carrier = C;
    type Opener = Opener;

    fn core(&self) -> &Core<C, Opener> {
        &self.0
    }

    fn core_mut(&mut self) -> &mut Core<C, Opener> {
        &mut self.0
    }
}

/// A TCP flow of a VMess client.
pub(crate) struct ServerStream<C>(Served<C>);

impl<C: Carrier> ServerStream<C> {
    /// Joins a carrier and the connection that its client asked for; `early` is what was read behind the request header,
    /// in a buffer that nobody else refers to. The response header goes out with the first payload, or with the end.
    pub(crate) fn new(carrier: C, shard: Rc<Shard>, connection: Connection, early: Buffer) -> Self {
        Self(Served::new(carrier, shard, connection, early, Cut::Stream))
    }
}

impl<C: Carrier> Stream for ServerStream<C> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        self.0.poll_recv(cx)
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        self.0.0.carrier.reset()
    }

    fn pass_turn(&mut self) {
        self.0.0.opening.pass_turn();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_ready(cx)
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        self.0.0.check()?;
        self.0.0.sealing.queue(data);
        Ok(())
    }

    fn send_limit(&self) -> usize {
        self.0.0.sealing.limit()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_finish(cx)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.0.poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        self.0.0.carrier.poll_drained(cx)
    }

    fn abort(&mut self) {
        self.0.abort();
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.0.0.carrier.local_ip()
    }
}

// As much as a client's: the server's idle connections are as many as all of its clients' together.
const _: () = assert!(size_of::<ServerStream<super::super::tcp::TcpCarrier>>() <= 2304);
