//! The way in: the carrier's bytes, taken apart into frames and handed to their sessions.

use super::super::queue::class_for;
use super::{Accepted, Link, Port, Session, State};
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::mux::{Action, Deframer, Frame, FrameError, Item};
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// How far the reading has come.
#[derive(Default)]
pub(super) struct Inlet {
    deframer: Deframer,
    sink: Sink,
}

/// Where the data of the present frame goes.
#[derive(Default)]
enum Sink {
    #[default]
    Nowhere,
    Stream(Rc<Port>),
    /// A datagram that is gathered from its pieces.
    Datagram {
        port: Rc<Port>,
        remote: Option<Target>,
        data: Buffer,
    },
}

impl Link {
    /// Takes a piece of the carrier's bytes. Sessions that the peer opens with it are added to `opened`.
    ///
    /// # Errors
    /// [`FrameError`]; the carrier cannot be read on.
    pub(super) fn take_in(
        self: &Rc<Self>,
        bytes: &Buffer,
        opened: &mut Vec<Accepted>,
    ) -> Result<(), FrameError> {
        let mut state = self.state.borrow_mut();
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let step = state.inlet.deframer.next(rest)?;
            at += step.consumed;
            match step.item {
                Some(Item::Frame(frame)) => {
                    let sink = self.begin(&mut state, frame, opened)?;
                    state.inlet.sink = sink;
                }
                Some(Item::Data { len, last }) => self.data(&mut state, bytes, at - len..at, last),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether the carrier may end here.
    pub(super) fn at_boundary(&self) -> bool {
        self.state.borrow().inlet.deframer.at_boundary()
    }

    /// Does what a frame says, and tells where its data goes.
    fn begin(
        self: &Rc<Self>,
        state: &mut State,
        frame: Frame,
        opened: &mut Vec<Accepted>,
    ) -> Result<Sink, FrameError> {
        let len = usize::from(frame.data.unwrap_or(0));
        match state.machine.receive(&frame)? {
            Action::Open(opening) => {
                let Some(target) = opening.target else { return Ok(Sink::Nowhere) };
                let port = Port::new(frame.id, opening.network, None);
                state.ports.insert(frame.id, Rc::clone(&port));
                let session = Session::new(Rc::clone(self), Rc::clone(&port), false);
                let (network, global_id) = (opening.network, opening.global_id);
                if global_id.is_some() {
                    port.set_xudp();
                }
                opened.push(Accepted { session, network, target, global_id });
                Ok(self.sink(port, None, len))
            }
            Action::Deliver(remote) => Ok(match state.ports.get(&frame.id) {
                Some(port) => {
                    if remote.is_some() {
                        port.set_xudp();
                    }
                    self.sink(Rc::clone(port), remote, len)
                }
                None => Sink::Nowhere,
            }),
            Action::End { .. } => {
                if let Some(port) = state.ports.remove(&frame.id) {
                    port.end(Ok(()));
                }
                Ok(Sink::Nowhere)
            }
            Action::Refuse => {
                state.refuse(frame.id);
                Ok(Sink::Nowhere)
            }
            Action::Ignore => Ok(Sink::Nowhere),
        }
    }

    /// Where `len` bytes of data for a session go.
    fn sink(&self, port: Rc<Port>, remote: Option<Target>, len: usize) -> Sink {
        if len == 0 {
            return Sink::Nowhere;
        }
        match port.network {
            Network::Tcp => Sink::Stream(port),
            Network::Udp => match self.shard.pool.take(class_for(len)) {
                Some(data) => Sink::Datagram { port, remote, data },
                None => {
                    self.lose();
                    Sink::Nowhere
                }
            },
        }
    }

    /// Takes a piece of a frame's data.
    fn data(&self, state: &mut State, bytes: &Buffer, range: Range<usize>, last: bool) {
        match &mut state.inlet.sink {
            Sink::Nowhere => {}
            Sink::Stream(port) => {
                // What comes for a session whose user has left is dropped.
                let known = state.ports.get(&port.id).is_some_and(|known| Rc::ptr_eq(known, port));
                if known && port.push(bytes.slice(range), &self.shard.pool) {
                    state.full += 1;
                }
            }
            Sink::Datagram { data, .. } => {
                data.append(bytes.get(range).unwrap_or_default());
            }
        }
        if last
            && let Sink::Datagram { port, remote, data } = std::mem::take(&mut state.inlet.sink)
            && port.push_datagram(data, remote)
        {
            self.lose();
        }
    }

    pub(super) fn lose(&self) {
        self.shard.shared.stats.dropped.fetch_add(1, Relaxed);
    }
}
