//! Mux at a client: the carriers of an outbound, and the sessions on them.
//!
//! The first carrier with room takes a new session, else another one is dialled; while that is under way it takes further
//! sessions already. One that is of no more use is forgotten, and ends with its last session.

use super::Vmess;
use crate::addr::{Host, Target};
use crate::config::{Level, LogLevel};
use crate::engine::outbound::{Answer, OpenError};
use crate::engine::shard::Shard;
use crate::error::{Error, ErrorKind};
use crate::mux::{CARRIER_NAME, Opening};
use crate::transport::StreamError;
use crate::transport::mux::{Link, Session, run};
use crate::vmess::Command;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use tokio::sync::Notify;

/// The port that V2Ray gives its carriers; it means nothing.
const CARRIER_PORT: u16 = 9527;

/// The carriers that sessions share.
pub(super) struct Carriers {
    concurrency: u16,
    list: RefCell<Vec<Rc<Carrier>>>,
}

/// A carrier, dialled or being dialled.
struct Carrier {
    link: Rc<Link>,
    dialled: OnceCell<Result<Level, OpenError>>,
    settled: Notify,
}

impl Carriers {
    /// None yet; each takes `concurrency` sessions at a time.
    pub(super) const fn new(concurrency: u16) -> Self {
        Self { concurrency, list: RefCell::new(Vec::new()) }
    }

    /// Gives no carrier there is a new session: the network has changed. What is on them lives as long as they do.
    pub(super) fn retire(&self) {
        self.list.borrow_mut().drain(..).for_each(|carrier| carrier.link.retire());
    }

    /// A session on a carrier that there is.
    fn open(&self, opening: &Opening) -> Option<(Rc<Carrier>, Session)> {
        let mut list = self.list.borrow_mut();
        list.retain(|carrier| !carrier.link.is_spent());
        list.iter().find_map(|carrier| Some((Rc::clone(carrier), carrier.link.open(opening)?)))
    }

    fn add(&self, carrier: &Rc<Carrier>) {
        self.list.borrow_mut().push(Rc::clone(carrier));
    }
}

impl Carrier {
    fn new(link: Rc<Link>) -> Rc<Self> {
        Rc::new(Self { link, dialled: OnceCell::new(), settled: Notify::new() })
    }

    /// Dials in a task of its own, since whoever asked first may leave before the others, and serves the carrier to its
    /// end.
    fn start(self: &Rc<Self>, outbound: &Rc<Vmess>, shard: &Rc<Shard>) {
        let (carrier, outbound, on) = (Rc::clone(self), Rc::clone(outbound), Rc::clone(shard));
        shard.spawn(async move {
            let target = Target { host: Host::Domain(CARRIER_NAME.into()), port: CARRIER_PORT };
            let dialled = outbound.dial(&on, Command::Mux, target).await;
            let tag = Rc::clone(&outbound).tag.clone();
            drop(outbound);
            let dialled = match dialled {
                Ok(dialled) => dialled,
                Err(failed) => {
                    carrier.settle(Err(failed));
                    return carrier.link.fail(&StreamError::Closed);
                }
            };
            let level = dialled.level;
            let stream = dialled.into_stream(Rc::clone(&on));
            carrier.settle(Ok(level));
            let ended = run(Rc::clone(&carrier.link), stream, drop).await;
            if let Err(error) = ended {
                on.shared.log(LogLevel::Debug, format_args!("a mux carrier by [{tag}]: {error}"));
            }
        });
    }

    fn settle(&self, dialled: Result<Level, OpenError>) {
        // The first outcome counts.
        let _ = self.dialled.set(dialled);
        self.settled.notify_waiters();
    }

    /// Waits until the carrier is connected.
    async fn connected(&self) -> Result<Level, OpenError> {
        loop {
            let settled = self.settled.notified();
            if let Some(dialled) = self.dialled.get() {
                return dialled.clone();
            }
            settled.await;
        }
    }
}

/// Opens a session on a carrier that has room, or on a new one.
///
/// # Errors
/// [`OpenError`] if the carrier cannot be connected.
pub(super) async fn open(
    outbound: &Rc<Vmess>,
    carriers: &Carriers,
    shard: &Rc<Shard>,
    opening: &Opening,
) -> Result<(Session, Level), OpenError> {
    let (carrier, session) = match carriers.open(opening) {
        Some(opened) => opened,
        None => {
            let carrier = Carrier::new(Link::client(shard, carriers.concurrency));
            let session = carrier.link.open(opening).ok_or_else(no_session)?;
            carriers.add(&carrier);
            carrier.start(outbound, shard);
            (carrier, session)
        }
    };
    let level = carrier.connected().await?;
    Ok((session, level))
}

/// Opens an XUDP session on a carrier of its own.
///
/// # Errors
/// As [`open`].
pub(super) async fn open_alone(
    outbound: &Rc<Vmess>,
    shard: &Rc<Shard>,
    opening: Opening,
) -> Result<(Session, Level), OpenError> {
    let (link, session) = Link::alone(shard, opening);
    let carrier = Carrier::new(link);
    carrier.start(outbound, shard);
    let level = carrier.connected().await?;
    Ok((session, level))
}

/// A new carrier has room for a session, since its concurrency is never zero.
fn no_session() -> OpenError {
    let error = Error::new(ErrorKind::Internal, "a new mux carrier takes no session");
    OpenError { error, answer: Answer::Failed }
}
