//! The server's bookkeeping of one carrier: which sessions there are, and which more it takes.

use super::Action;
use super::frame::{Frame, FrameError, Status};
use crate::addr::Network;
use std::collections::HashMap;

/// The most sessions at a time. V2Ray's clients open 128 over a carrier's life; others may do as they like up to here.
pub const MAX_SESSIONS: usize = 256;

/// A server's sessions on one carrier.
#[derive(Debug, Default)]
pub struct Server {
    open: HashMap<u16, Network>,
}

impl Server {
    /// A carrier without a session.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets a session that has ended.
    pub fn close(&mut self, id: u16) {
        self.open.remove(&id);
    }

    /// Says what a frame means. A new session is taken on, an ended one forgotten.
    ///
    /// # Errors
    /// [`FrameError::Reopened`].
    pub fn receive(&mut self, frame: &Frame) -> Result<Action, FrameError> {
        let known = self.open.get(&frame.id).copied();
        Ok(match (frame.status, &frame.opening) {
            (Status::New, Some(opening)) => match known {
                // A source that names its next peer this way.
                Some(Network::Udp) if opening.network == Network::Udp => {
                    Action::Deliver(opening.target.clone())
                }
                Some(_) => return Err(FrameError::Reopened),
                None if self.open.len() >= MAX_SESSIONS || opening.target.is_none() => Action::Refuse,
                None => {
                    self.open.insert(frame.id, opening.network);
                    Action::Open(opening.clone())
                }
            },
            (Status::Keep, _) if known.is_some() => Action::Deliver(frame.remote.clone()),
            (Status::Keep, _) => Action::Refuse,
            (Status::End, _) if self.open.remove(&frame.id).is_some() => Action::End { error: frame.error },
            (Status::New | Status::End | Status::KeepAlive, _) => Action::Ignore,
        })
    }
}
