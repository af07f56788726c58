//! What handles send to their shard: commands that want an answer, and signals of which only the latest counts.
//!
//! A command's reply is always given or dropped. For that a mailbox is closed under its lock: a channel whose receiver goes
//! while a message is on its way keeps that message for as long as there is a sender, and its asker would wait for ever.

use super::api::{CheckReport, ConnectionInfo, MemoryPressure, NetworkInfo, ReloadReport, TunHandle};
use crate::config::Config;
use crate::error::Error;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Makes a mailbox and the post that brings letters to it.
pub(crate) fn mailbox<T>() -> (Post<T>, Mailbox<T>) {
    let slot = Arc::new(Slot {
        letters: Mutex::new(Letters { waiting: VecDeque::new(), expected: true, open: true }),
        bell: Notify::new(),
    });
    (Post(Arc::clone(&slot)), Mailbox(slot))
}

/// The senders' end. Dropping it ends the mailbox once what waits has been taken.
pub(crate) struct Post<T>(Arc<Slot<T>>);

/// The reader's end. Dropping it drops what waits, and all that is sent from then on.
pub(crate) struct Mailbox<T>(Arc<Slot<T>>);

struct Slot<T> {
    letters: Mutex<Letters<T>>,
    bell: Notify,
}

struct Letters<T> {
    waiting: VecDeque<T>,
    /// Whether there is a post.
    expected: bool,
    /// Whether there is a reader.
    open: bool,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, Letters<T>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next letter, or that there will be none; `None` if one may still come.
    fn take(&self) -> Option<Option<T>> {
        let mut letters = self.lock();
        let letter = letters.waiting.pop_front();
        (letter.is_some() || !letters.expected).then_some(letter)
    }
}

impl<T> Post<T> {
    /// Sends a letter, which is dropped at once if nobody will read it. Never blocks.
    pub(crate) fn send(&self, letter: T) {
        let mut letters = self.0.lock();
        if letters.open {
            letters.waiting.push_back(letter);
            drop(letters);
            self.0.bell.notify_one();
        } else {
            // Its drop may call its asker: not under the lock.
            drop(letters);
            drop(letter);
        }
    }
}

impl<T> Drop for Post<T> {
    fn drop(&mut self) {
        self.0.lock().expected = false;
        self.0.bell.notify_one();
    }
}

impl<T> Mailbox<T> {
    /// Waits for the next letter; `None` after the last one. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        loop {
            if let Some(taken) = self.0.take() {
                return taken;
            }
            self.0.bell.notified().await;
        }
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        let mut letters = self.0.lock();
        letters.open = false;
        let waiting = mem::take(&mut letters.waiting);
        drop(letters);
        drop(waiting);
    }
}

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What a handle asks of its shard.
pub(crate) enum Command {
    /// Swap the tun device.
    SetTun(TunHandle, Reply<()>),
    /// Prove the path to the server within a time.
    Check(Duration, Reply<CheckReport>),
    /// Put another config in force.
    Reload(Box<Config>, Reply<ReloadReport>),
    /// List the open connections.
    Connections(Reply<Vec<ConnectionInfo>>),
    /// Close a connection.
    Close(u64, Reply<bool>),
    /// End; tell the waiter, if there is one.
    Stop(Option<Stopping>),
}

/// One who waits for the end.
pub(crate) struct Stopping {
    /// Until when; `None`: for ever.
    pub(crate) deadline: Option<Instant>,
    /// Where the answer goes.
    pub(crate) reply: Reply<()>,
}

/// What the host has signalled and the shard has not yet seen.
#[derive(Default)]
pub(crate) struct Signals {
    latest: Mutex<Latest>,
    bell: Notify,
}

/// The newest value of each signal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Latest {
    /// The network below; `Some(None)`: there is none.
    pub(crate) network: Option<Option<NetworkInfo>>,
    /// The device has slept and is awake again.
    pub(crate) wake: bool,
    /// How short memory is.
    pub(crate) pressure: Option<MemoryPressure>,
    /// The clock's correction has been set: the seconds by which the device is fast.
    pub(crate) skew: Option<i64>,
}

impl Signals {
    /// Notes a signal for the shard. Never blocks.
    pub(crate) fn send(&self, note: impl FnOnce(&mut Latest)) {
        note(&mut self.latest.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }

    /// Waits for signals and takes them. Cancel-safe.
    pub(crate) async fn recv(&self) -> Latest {
        loop {
            let latest = mem::take(&mut *self.latest.lock().unwrap_or_else(PoisonError::into_inner));
            if latest != Latest::default() {
                return latest;
            }
            self.bell.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    #[tokio::test]
    async fn letters_come_in_order_until_the_post_is_gone() {
        let (post, mut mailbox) = mailbox();
        (0..3).for_each(|letter| post.send(letter));
        assert_eq!(mailbox.recv().await, Some(0));
        // Given up while it waits, which loses nothing.
        let (later, mut empty) = super::mailbox();
        tokio::select! {
            biased;
            _ = empty.recv() => panic!("nothing was sent"),
            () = std::future::ready(()) => {}
        }
        later.send(7);
        assert_eq!(empty.recv().await, Some(7));
        drop(post);
        assert_eq!(mailbox.recv().await, Some(1));
        assert_eq!(mailbox.recv().await, Some(2));
        assert_eq!(mailbox.recv().await, None);
        assert_eq!(mailbox.recv().await, None);
    }

    #[test]
    fn a_letter_that_nobody_reads_is_dropped_while_the_post_lives() {
        let (post, mailbox) = mailbox();
        let (reply, mut before) = oneshot::channel::<()>();
        post.send(reply);
        drop(mailbox);
        assert_eq!(before.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let (reply, mut after) = oneshot::channel::<()>();
        post.send(reply);
        assert_eq!(after.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    /// Neither order of sending and closing leaves an asker without an answer, nor does any moment between.
    #[test]
    fn an_asker_is_answered_however_its_letter_meets_the_end() {
        let (rounds, both) = (2_000, Arc::new(Barrier::new(2)));
        let (hand, handed) = std::sync::mpsc::sync_channel::<Mailbox<oneshot::Sender<()>>>(1);
        let meet = Arc::clone(&both);
        let reader = thread::spawn(move || {
            handed.into_iter().for_each(|mailbox| {
                meet.wait();
                drop(mailbox);
                meet.wait();
            });
        });
        for round in 0..rounds {
            let (post, mailbox) = mailbox();
            hand.send(mailbox).expect("the reader lives");
            let (reply, mut answer) = oneshot::channel();
            both.wait();
            post.send(reply);
            both.wait();
            assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed), "round {round}");
        }
        drop(hand);
        reader.join().expect("no panic");
    }
}
