//! Packetaddr for clients: a UDP connection whose chunks begin with an address.

use super::cone::{Origin, Source};
use crate::addr::Target;
use crate::mux::packetaddr::MARKER;
use crate::transport::packets::Packets;
use crate::transport::{Datagram, Datagrams, StreamError};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How many answers wait for a blocked carrier; the oldest goes first.
const MAX_WAITING: usize = 64;
/// How many datagrams move each way before others have their turn.
const BUDGET: usize = 64;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(120);

/// Whether a UDP request for this host is packetaddr. The name alone matters: peers send different ports.
pub(super) fn is_marker(target: &Target) -> bool {
    target.host.domain() == Some(MARKER)
}

/// Answers on their way to the client.
#[derive(Default)]
struct Answers {
    waiting: VecDeque<Datagram>,
    waker: Option<Waker>,
}

/// Serves a connection until it has ended, or has been silent for two minutes. `below` is bound to `marker`, the
/// request's target.
pub(super) async fn serve(below: Box<dyn Datagrams>, marker: Target, origin: Origin) {
    let shard = Rc::clone(&origin.shard);
    let mut packets = Packets::new(below, marker, shard.pool.clone());
    let source = Source::new(origin);
    let answers = Rc::new(RefCell::new(Answers::default()));
    let (into, on) = (Rc::clone(&answers), Rc::clone(&shard));
    source.set_outlet(Some(Box::new(move |datagram| {
        let mut answers = into.borrow_mut();
        if answers.waiting.len() >= MAX_WAITING {
            answers.waiting.pop_front();
            on.shared.stats.dropped.fetch_add(1, Relaxed);
        }
        answers.waiting.push_back(datagram);
        let waker = answers.waker.take();
        drop(answers);
        waker.into_iter().for_each(Waker::wake);
    })));
    let mut idle = pin!(sleep_until(Instant::now() + IDLE));
    let mut active = Instant::now();
    poll_fn(|cx| {
        let moved = match pump(cx, &mut packets, &source, &answers) {
            Ok(Some(moved)) => moved,
            // Its end, or its failure: there is nobody to tell.
            Ok(None) | Err(_) => return Poll::Ready(()),
        };
        if moved > 0 {
            active = Instant::now();
        }
        while idle.as_mut().poll(cx).is_ready() {
            if active.elapsed() >= IDLE {
                return Poll::Ready(());
            }
            idle.as_mut().reset(active + IDLE);
        }
        if moved >= BUDGET {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// Moves what is at hand, both ways; returns how many datagrams that was, `None` at the client's end.
fn pump(
    cx: &mut Context<'_>,
    packets: &mut Packets,
    source: &Rc<Source>,
    answers: &RefCell<Answers>,
) -> Result<Option<usize>, StreamError> {
    let mut up = 0;
    while up < BUDGET {
        match packets.poll_recv(cx)? {
            Poll::Ready(Some(datagram)) => source.push(datagram),
            Poll::Ready(None) => return Ok(None),
            Poll::Pending => break,
        }
        up += 1;
    }
    let mut down = 0;
    while down < BUDGET && packets.poll_ready(cx)?.is_ready() {
        let Some(datagram) = answers.borrow_mut().waiting.pop_front() else { break };
        packets.send(datagram)?;
        down += 1;
    }
    let _ = packets.poll_flush(cx)?;
    answers.borrow_mut().waker = Some(cx.waker().clone());
    Ok(Some(up.max(down)))
}
