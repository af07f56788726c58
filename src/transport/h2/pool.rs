//! The connections to one server, on one shard.

use super::carrier::StreamCarrier;
use super::chunk::Chunk;
use super::failure::Failure;
use super::framing::Framing;
use super::hub::Slot;
use super::link::Link;
use super::options::Options;
use super::receiving::{Answer, Head, Receiving};
use super::sending::Sending;
use crate::engine::Shard;
use crate::error::{Error, ErrorKind};
use crate::transport::Carrier;
use crate::transport::dial::DialError;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::Request;
use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The most connections to one server that take new streams.
const MAX_LINKS: usize = 32;

/// The connections to one server. New ones are dialled when those that are there have no room.
#[derive(Default)]
pub(in crate::transport) struct Pool {
    links: RefCell<Vec<Rc<Link>>>,
    dialling: RefCell<Option<Rc<Dialling>>>,
    /// Told when a stream has left.
    freed: Rc<Notify>,
}

/// A connection that is being made, which others wait for as well.
#[derive(Default)]
struct Dialling {
    failed: RefCell<Option<DialError>>,
    done: Notify,
}

/// A stream that has been opened.
struct Opened {
    slot: Slot,
    response: ResponseFuture,
    sender: SendStream<Chunk>,
    local_ip: Option<IpAddr>,
    link: Rc<Link>,
}

impl Pool {
    /// Opens a stream and sends `request` on it. Its answer is not waited for: `head` judges it when it comes, and it
    /// must come by `answer_by` if that is given. `dial` makes a carrier if one is needed.
    ///
    /// # Errors
    /// [`DialError`] of `dial`, else with stage `upgrade`; `ResourceLimit` if all connections stay full until the deadline.
    pub(in crate::transport) async fn open<F, H>(
        &self,
        shard: &Rc<Shard>,
        options: &Options,
        request: &Request<()>,
        (head, answer_by): (H, Option<Instant>),
        deadline: Instant,
        dial: &impl AsyncFn() -> Result<Box<dyn Carrier>, DialError>,
    ) -> Result<Box<dyn Carrier>, DialError>
    where
        F: Framing + Default + 'static,
        H: Head + 'static,
    {
        let opened = self.start(shard, options, request, deadline, dial).await?;
        let sending = Sending::<F>::new(opened.sender, opened.link.hub.queued(), false);
        let answer = Answer::new(opened.response, head, answer_by);
        let receiving = Receiving::answer(answer, F::default());
        Ok(Box::new(StreamCarrier::new(opened.slot, sending, receiving, opened.local_ip)))
    }

    /// Uses none of the connections for new streams any more; those without streams close at once.
    pub(in crate::transport) fn retire(&self) {
        for link in self.links.take() {
            link.retire();
        }
    }

    /// Shows every connection to `look`.
    #[cfg(test)]
    pub(super) fn each_link(&self, look: impl FnMut(&Rc<Link>)) {
        self.links.borrow().iter().for_each(look);
    }

    async fn start(
        &self,
        shard: &Rc<Shard>,
        options: &Options,
        request: &Request<()>,
        deadline: Instant,
        dial: &impl AsyncFn() -> Result<Box<dyn Carrier>, DialError>,
    ) -> Result<Opened, DialError> {
        let started = Instant::now();
        loop {
            if Instant::now() > deadline {
                return Err(Failure::Silent.into_dial(started));
            }
            let Some(link) = self.pick() else {
                self.grow(shard, options, deadline, dial).await?;
                continue;
            };
            if link.is_stale(shard.clock.now())
                && let Err(failure) = link.probe(deadline).await
            {
                link.give_up(failure);
                continue;
            }
            // Others may have filled it meanwhile.
            if !link.has_room() {
                continue;
            }
            let slot = link.hub.slot();
            match link.open(request.clone()) {
                Ok((response, sender)) => {
                    return Ok(Opened { slot, response, sender, local_ip: link.local_ip, link });
                }
                // It is going away.
                Err(_) => link.retire(),
            }
        }
    }

    /// The first connection with room: so the others become idle and close.
    fn pick(&self) -> Option<Rc<Link>> {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.is_open());
        links.iter().find(|link| link.has_room()).cloned()
    }

    /// Makes another connection, or waits for the one that is being made.
    async fn grow(
        &self,
        shard: &Rc<Shard>,
        options: &Options,
        deadline: Instant,
        dial: &impl AsyncFn() -> Result<Box<dyn Carrier>, DialError>,
    ) -> Result<(), DialError> {
        let started = Instant::now();
        let others = self.dialling.borrow().clone();
        if let Some(others) = others {
            let done = timeout_at(deadline, others.done.notified()).await;
            done.map_err(|_| Failure::Silent.into_dial(started))?;
            let failed = others.failed.borrow().clone();
            return failed.map_or(Ok(()), Err);
        }
        if self.links.borrow().len() >= MAX_LINKS {
            // Servers end the streams of apps that are gone seconds later.
            return timeout_at(deadline, self.freed.notified()).await.map_err(|_| {
                let what = ErrorKind::ResourceLimit { what: "streams" };
                let error = Error::new(what, "all connections to the server are full");
                DialError { error, kind: io::ErrorKind::QuotaExceeded }
            });
        }
        let turn = Turn::begin(self);
        let made = match dial().await {
            Ok(carrier) => Link::connect(shard, carrier, options, &self.freed, deadline).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(link) => {
                self.links.borrow_mut().push(link);
                Ok(())
            }
            Err(error) => {
                turn.dialling.failed.replace(Some(error.clone()));
                Err(error)
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.retire();
    }
}

/// While this lives, others wait for the connection that is being made. If it is given up, the next one tries.
struct Turn<'a> {
    pool: &'a Pool,
    dialling: Rc<Dialling>,
}

impl<'a> Turn<'a> {
    fn begin(pool: &'a Pool) -> Self {
        let dialling = Rc::<Dialling>::default();
        pool.dialling.replace(Some(Rc::clone(&dialling)));
        Self { pool, dialling }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pool.dialling.take();
        self.dialling.done.notify_waiters();
    }
}
