//! Doubles for tests: a carrier that a test scripts, a VMess server behind one, and a shard with nothing behind it.

mod pipe;
mod server;

pub(crate) use pipe::{Pipe, Twin};
pub(crate) use server::{Server, request};

use super::Carrier;
use crate::config::{
    Config, DomainStrategy, Freedom, LogLevel, Outbound, OutboundProtocol, Policy, Vmesskit,
};
use crate::engine::Shard;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A context whose wake-ups go nowhere.
pub(crate) fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A config with one freedom outbound.
pub(crate) fn config() -> Config {
    let freedom = Freedom { strategy: DomainStrategy::Any, redirect: None, level: 0 };
    Config {
        log_level: LogLevel::None,
        inbounds: Vec::new(),
        outbounds: vec![Outbound::new("direct", OutboundProtocol::Freedom(freedom))],
        rules: Vec::new(),
        dns_servers: Vec::new(),
        policy: Policy::default(),
        vmesskit: Vmesskit::default(),
    }
}

/// A shard with nothing but [`config`].
pub(crate) fn shard() -> Rc<Shard> {
    Shard::for_tests(config())
}

/// What a [`ScriptCarrier`] is to do, and what has been done to it.
pub(crate) struct Script {
    incoming: VecDeque<u8>,
    end: Option<Result<(), io::ErrorKind>>,
    waker: Option<Waker>,
    /// The most bytes that one read returns.
    pub(crate) read_limit: usize,
    /// The most bytes that one write takes.
    pub(crate) write_limit: usize,
    /// How many more bytes writes take before they block.
    pub(crate) write_room: usize,
    /// What every write fails with.
    pub(crate) write_error: Option<io::ErrorKind>,
    /// The bytes written.
    pub(crate) written: Vec<u8>,
    /// The length of each write.
    pub(crate) writes: Vec<usize>,
    /// The length of each read that returned data.
    pub(crate) reads: Vec<usize>,
    /// Whether our direction was ended.
    pub(crate) closed: bool,
    /// Whether it was aborted.
    pub(crate) aborted: bool,
    /// Whether what was written is still on its way.
    pub(crate) undrained: bool,
}

impl Script {
    /// A carrier that blocks on reading and takes every write, and the script that changes that.
    pub(crate) fn carrier() -> (ScriptCarrier, Rc<RefCell<Self>>) {
        let script = Rc::new(RefCell::new(Self {
            incoming: VecDeque::new(),
            end: None,
            waker: None,
            read_limit: usize::MAX,
            write_limit: usize::MAX,
            write_room: usize::MAX,
            write_error: None,
            written: Vec::new(),
            writes: Vec::new(),
            reads: Vec::new(),
            closed: false,
            aborted: false,
            undrained: false,
        }));
        (ScriptCarrier(Rc::clone(&script)), script)
    }

    /// Makes bytes readable.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.incoming.extend(bytes);
        self.wake();
    }

    /// Ends the incoming direction after what was fed: properly, or with an error.
    pub(crate) fn end(&mut self, how: Result<(), io::ErrorKind>) {
        self.end = Some(how);
        self.wake();
    }

    /// Lets writes take `n` more bytes.
    pub(crate) fn open_writes(&mut self, n: usize) {
        self.write_room = n;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A carrier in memory that does what its [`Script`] says.
pub(crate) struct ScriptCarrier(Rc<RefCell<Script>>);

impl Carrier for ScriptCarrier {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut script = self.0.borrow_mut();
        if script.incoming.is_empty() && script.end.is_none() {
            script.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_vectored(cx, &mut [IoSliceMut::new(out)])
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut script = self.0.borrow_mut();
        if script.incoming.is_empty() {
            return match script.end {
                Some(how) => Poll::Ready(how.map(|()| 0).map_err(io::Error::from)),
                None => {
                    script.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let limit = script.read_limit;
        let mut read = 0;
        for byte in out.iter_mut().flat_map(|slice| slice.iter_mut()).take(limit) {
            let Some(next) = script.incoming.pop_front() else { break };
            *byte = next;
            read += 1;
        }
        script.reads.push(read);
        Poll::Ready(Ok(read))
    }

    fn poll_drained(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.0.borrow().undrained { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut script = self.0.borrow_mut();
        if let Some(kind) = script.write_error {
            return Poll::Ready(Err(kind.into()));
        }
        if script.write_room == 0 {
            script.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let limit = script.write_limit.min(script.write_room);
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(limit).collect();
        if script.write_room != usize::MAX {
            script.write_room -= bytes.len();
        }
        script.written.extend_from_slice(&bytes);
        script.writes.push(bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().closed = true;
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        self.0.borrow_mut().aborted = true;
    }
}
