//! The direction towards us of one stream.

use super::failure::Failure;
use super::framing::Framing;
use super::hub::Slot;
use bytes::{Buf, Bytes};
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::HeaderMap;
use http::response::Parts;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep};

/// Judges the head of an answer.
pub(in crate::transport) trait Head: Unpin {
    /// # Errors
    /// Why it is no success.
    fn check(&self, head: &Parts, ended: bool) -> Result<(), Failure>;
}

/// A server reads no answers.
pub(super) struct NoHead;

impl Head for NoHead {
    fn check(&self, _: &Parts, _: bool) -> Result<(), Failure> {
        Ok(())
    }
}

/// The answer that a client waits for.
pub(super) struct Answer<H> {
    response: ResponseFuture,
    head: H,
    started: Instant,
    /// When it must have come, if it must come before the peer has anything to say.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<H: Head> Answer<H> {
    /// Of a request that has just been made.
    pub(super) fn new(response: ResponseFuture, head: H, deadline: Option<Instant>) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Self { response, head, started: Instant::now(), deadline }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, Failure>> {
        if let Poll::Ready(answered) = Pin::new(&mut self.response).poll(cx) {
            let (parts, body) = answered?.into_parts();
            return Poll::Ready(self.head.check(&parts, body.is_end_stream()).map(|()| body));
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| Err(Failure::Silent)),
            None => Poll::Pending,
        }
    }
}

enum State<H> {
    /// Nothing has come yet.
    Waiting(Box<Answer<H>>),
    Open(RecvStream),
    /// Everything has come, but perhaps for trailers.
    Ending(RecvStream),
    Ended,
    Failed(Failure),
}

/// The direction towards us of one stream.
pub(super) struct Receiving<F, H> {
    state: State<H>,
    framing: F,
    /// What has come of one frame and was not read. Payload comes first.
    wire: Bytes,
    /// How much of `wire` is known to be payload.
    payload: usize,
}

impl<F, H> Receiving<F, H> {
    /// What is still to come, unless the peer has ended already or nothing may come.
    pub(super) fn take_rest(&mut self) -> Option<RecvStream> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Open(body) if !body.is_end_stream() => Some(body),
            _ => None,
        }
    }
}

impl<F: Framing, H: Head> Receiving<F, H> {
    /// At a client.
    pub(super) fn answer(answer: Answer<H>, framing: F) -> Self {
        Self { state: State::Waiting(Box::new(answer)), framing, wire: Bytes::new(), payload: 0 }
    }

    /// At a server.
    pub(super) const fn request(body: RecvStream, framing: F) -> Self {
        Self { state: State::Open(body), framing, wire: Bytes::new(), payload: 0 }
    }

    /// Waits until payload, the end or a failure can be read.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, slot: &mut Slot) -> Poll<io::Result<()>> {
        while self.payload == 0 {
            if let Err(failure) = self.unframe() {
                return Poll::Ready(Err(self.fail(failure)));
            }
            if self.payload > 0 {
                break;
            }
            match &mut self.state {
                State::Waiting(answer) => {
                    let started = answer.started;
                    match ready!(answer.poll(cx)) {
                        Ok(mut body) => {
                            slot.watch(&mut body);
                            self.state = State::Open(body);
                        }
                        Err(failure) => {
                            let failure = slot.explain(failure);
                            self.fail(failure.clone());
                            let kind = failure.kind();
                            return Poll::Ready(Err(io::Error::new(kind, failure.into_dial(started))));
                        }
                    }
                }
                State::Open(body) => match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) => self.wire = data,
                    Some(Err(error)) => {
                        return Poll::Ready(Err(self.fail(slot.explain(error.into()))));
                    }
                    None => self.finish_body(),
                },
                State::Ending(body) => {
                    let ended = match ready!(body.poll_trailers(cx)) {
                        Ok(trailers) => self.framing.check_end(trailers.as_ref()),
                        Err(error) => Err(error.into()),
                    };
                    match ended {
                        Ok(()) => self.state = State::Ended,
                        Err(failure) => return Poll::Ready(Err(self.fail(slot.explain(failure)))),
                    }
                }
                State::Ended => break,
                State::Failed(failure) => return Poll::Ready(Err(failure.clone().into_io())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into `out`, from as many frames as there are.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        slot: &mut Slot,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut read = 0;
        while read < out.len() {
            match self.poll_ready(cx, slot) {
                Poll::Ready(Ok(())) if self.payload > 0 => {}
                // What was read comes first; the rest is said again.
                _ if read > 0 => break,
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(0)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let n = self.payload.min(self.wire.len()).min(out.len() - read);
            if let (Some(out), Some(wire)) = (out.get_mut(read..read + n), self.wire.get(..n)) {
                out.copy_from_slice(wire);
            }
            read += n;
            self.payload -= n;
            self.consume(n);
        }
        Poll::Ready(Ok(read))
    }

    /// Skips what is no payload at the start of `wire`.
    fn unframe(&mut self) -> Result<(), Failure> {
        while self.payload == 0 && !self.wire.is_empty() {
            let step = self.framing.step(&self.wire)?;
            self.consume(step.skip.min(self.wire.len()));
            self.payload = step.payload.min(self.wire.len());
        }
        Ok(())
    }

    /// Lets go of the first `n` bytes, and lets the peer send as many.
    fn consume(&mut self, n: usize) {
        self.wire.advance(n);
        if self.wire.is_empty() {
            // What is left of the frame's memory goes with it.
            self.wire = Bytes::new();
        }
        if let State::Open(body) | State::Ending(body) = &mut self.state {
            // Fails only if more is given back than has come.
            let _ = body.flow_control().release_capacity(n);
        }
    }

    fn finish_body(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Open(body) => State::Ending(body),
            other => other,
        };
    }

    fn fail(&mut self, failure: Failure) -> io::Error {
        self.wire = Bytes::new();
        self.payload = 0;
        self.state = State::Failed(failure.clone());
        failure.into_io()
    }
}

/// What the trailers or the head say of how a call of gRPC ended.
pub(in crate::transport) fn grpc_status(fields: &HeaderMap) -> Option<Failure> {
    let status = fields.get("grpc-status")?;
    let code = status.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(2);
    let text = fields.get("grpc-message").map(|text| Failure::shown(text.as_bytes())).unwrap_or_default();
    (code != 0).then_some(Failure::Grpc(code, text))
}
