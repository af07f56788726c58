//! The buffers that carry payload between the rooms of a shard, and the pool that owns their memory.
//!
//! A [`Buffer`] is a range of bytes in a pooled slab. It moves by handle: a record read from a socket is opened in place
//! and its payload travels to the tun device as a [`Buffer`], never copied. Buffers made by [`Pool::take`] leave
//! [`HEADROOM`] free before the data and [`TAILROOM`] behind it, so that a payload can be sealed where it lies.
//!
//! Everything here belongs to one shard (one thread); nothing is locked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

/// Free bytes before the data of a new buffer: a size field (18 with authenticated length) and a mux frame header.
pub const HEADROOM: usize = 64;
/// Free bytes that a new buffer keeps behind its data: an AEAD tag (16) and padding (63).
pub const TAILROOM: usize = 80;

/// The sizes that slabs come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Room for 4096 bytes of data: first records, datagrams, what a quiet flow holds.
    Small,
    /// Room for one segment at an MTU of 9000, or a record of 8 KiB as some servers make them.
    Medium,
    /// Room for one full record: 16,305 bytes of data and a little more.
    Record,
    /// Room for the largest record on the wire (65,553 bytes), or many small ones: what sockets are read into.
    Large,
}

impl Class {
    const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Record, Self::Large];

    /// The smallest class whose buffers take `bytes`; the largest one if none does.
    pub const fn for_len(bytes: usize) -> Self {
        let [small, medium, record, large] = Self::ALL;
        match bytes {
            _ if bytes <= small.capacity() => small,
            _ if bytes <= medium.capacity() => medium,
            _ if bytes <= record.capacity() => record,
            _ => large,
        }
    }

    /// Bytes of data that a fresh buffer of this class takes between headroom and tailroom.
    pub const fn capacity(self) -> usize {
        self.slab_len() - HEADROOM - TAILROOM
    }

    /// Bytes of memory that a slab of this class holds.
    pub const fn slab_len(self) -> usize {
        match self {
            Self::Small => 4096 + HEADROOM + TAILROOM,
            Self::Medium => 9_216 + HEADROOM + TAILROOM,
            Self::Record => 16_384 + HEADROOM + TAILROOM,
            Self::Large => 65_536 + 64 + HEADROOM + TAILROOM,
        }
    }

    /// How many free slabs of this class a pool keeps for the next taker.
    const fn kept(self) -> usize {
        match self {
            Self::Small => 32,
            Self::Medium | Self::Record => 16,
            Self::Large => 4,
        }
    }
}

const _: () =
    assert!(Class::Record.capacity() >= 16_305 && Class::Large.slab_len() - HEADROOM >= 65_535 + 18);

struct Slab {
    bytes: Box<[u8]>,
    class: Class,
    pool: Weak<RefCell<State>>,
}

struct State {
    limit: usize,
    used: usize,
    /// The same as `used`, for other threads to read.
    gauge: Arc<AtomicU64>,
    free: [Vec<Rc<Slab>>; 4],
    queue: Queue,
}

impl State {
    /// Bytes out from which the pool is tight.
    const fn tight_from(&self) -> usize {
        self.limit / 8 * 3
    }

    fn set_used(&mut self, used: usize) {
        self.used = used;
        self.gauge.store(used as u64, Relaxed);
    }

    /// The task that memory is to be promised to next, if there is room for it.
    fn next_turn(&mut self) -> Option<Waker> {
        let room = self.limit.saturating_sub(self.used).checked_sub(self.queue.promised)?;
        self.queue.promise(room)
    }
}

/// The tasks that wait for memory, by class and in the order in which they came. Those that were woken have left it, and
/// room is kept for them until they take it or give their turn up, so that no two are woken for the same.
#[derive(Default)]
struct Queue {
    waiting: [BTreeMap<u64, Waker>; 4],
    last: u64,
    promised: usize,
}

impl Queue {
    /// Takes out the task that came first of those that `room` suffices for.
    fn promise(&mut self, room: usize) -> Option<Waker> {
        let fitting = Class::ALL.into_iter().filter(|class| class.slab_len() <= room);
        let first = |class: Class| self.waiting[class as usize].keys().next().map(|place| (*place, class));
        let (place, class) = fitting.filter_map(first).min()?;
        self.promised += class.slab_len();
        self.waiting[class as usize].remove(&place)
    }

    /// Takes a task out that waits no longer, or releases what was promised to it.
    fn leave(&mut self, place: u64, class: Class) {
        if self.waiting[class as usize].remove(&place).is_none() {
            self.promised -= class.slab_len();
        }
    }
}

/// A task's turn to get memory from a pool: empty while it waits for none. Dropping it passes the turn on.
#[derive(Default)]
pub struct Turn(Option<Box<Place>>);

struct Place {
    pool: Pool,
    class: Class,
    number: u64,
}

impl Turn {
    /// Waits no longer.
    pub fn pass(&mut self) {
        self.0 = None;
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("waits", &self.0.is_some()).finish()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.state.borrow_mut().queue.leave(self.number, self.class);
        self.pool.wake();
    }
}

/// A shard's pool of slabs, bounded in bytes. Clones share the same memory.
#[derive(Clone)]
pub struct Pool {
    state: Rc<RefCell<State>>,
}

impl Pool {
    /// Makes a pool that hands out at most `limit` bytes of slabs at a time.
    pub fn new(limit: usize) -> Self {
        Self::with_gauge(limit, Arc::default())
    }

    /// Makes a pool that keeps [`Pool::used`] in `gauge` too, where other threads can read it.
    pub fn with_gauge(limit: usize, gauge: Arc<AtomicU64>) -> Self {
        let free = [const { Vec::new() }; 4];
        Self { state: Rc::new(RefCell::new(State { limit, used: 0, gauge, free, queue: Queue::default() })) }
    }

    /// Takes an empty, writable buffer; `None` when that would pass the pool's limit.
    pub fn take(&self, class: Class) -> Option<Buffer> {
        let mut state = self.state.borrow_mut();
        if state.used + class.slab_len() > state.limit {
            return None;
        }
        let used = state.used + class.slab_len();
        state.set_used(used);
        let slab = state.free[class as usize].pop().unwrap_or_else(|| {
            let bytes = vec![0; class.slab_len()].into_boxed_slice();
            Rc::new(Slab { bytes, class, pool: Rc::downgrade(&self.state) })
        });
        Some(Buffer { slab: Some(slab), start: HEADROOM as u32, end: HEADROOM as u32 })
    }

    /// Takes an empty buffer, or arranges that the task is woken when there is room for one.
    pub fn poll_take(&self, cx: &mut Context<'_>, class: Class, turn: &mut Turn) -> Poll<Buffer> {
        match self.take(class) {
            Some(buffer) => {
                turn.pass();
                Poll::Ready(buffer)
            }
            None => {
                self.wait(cx, class, turn);
                Poll::Pending
            }
        }
    }

    /// Arranges that the task is woken when there is room for a buffer of `class`. Until it has tried again, or given
    /// `turn` up, nobody else is woken for that room.
    pub fn wait(&self, cx: &mut Context<'_>, class: Class, turn: &mut Turn) {
        if turn.0.as_ref().is_some_and(|place| place.class != class) {
            turn.pass();
        }
        let mut state = self.state.borrow_mut();
        let queue = &mut state.queue;
        let known = turn.0.as_ref().map(|place| place.number);
        let number = known.unwrap_or(queue.last + 1);
        queue.last = queue.last.max(number);
        let waited = queue.waiting[class as usize].insert(number, cx.waker().clone()).is_some();
        if known.is_none() {
            turn.0 = Some(Box::new(Place { pool: self.clone(), class, number }));
        } else if !waited {
            // What it was woken for is gone: it waits in its old place.
            queue.promised -= class.slab_len();
        }
    }

    /// Wakes those that there is room for.
    fn wake(&self) {
        loop {
            let next = self.state.borrow_mut().next_turn();
            match next {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Copies `data` into a new buffer of the smallest class that takes it; `None` at the limit, or if no class does.
    pub fn copy(&self, data: &[u8]) -> Option<Buffer> {
        let class = Class::ALL.into_iter().find(|class| class.capacity() >= data.len())?;
        let mut buffer = self.take(class)?;
        buffer.append(data);
        Some(buffer)
    }

    /// Bytes of slabs that are out at the moment.
    pub fn used(&self) -> usize {
        self.state.borrow().used
    }

    /// The most bytes of slabs that may be out.
    pub fn limit(&self) -> usize {
        self.state.borrow().limit
    }

    /// How many bytes of slabs one flow may hold at the moment: a quarter of what is free before the pool is tight, at
    /// most 1 MiB.
    pub fn share(&self) -> usize {
        let state = self.state.borrow();
        (state.tight_from().saturating_sub(state.used) / 4).min(1 << 20)
    }

    /// Whether three eighths of the pool are out. From here on a flow has one small slab each way at a time: what a
    /// stalled flow holds cannot be taken back, so a few must not hold what a thousand others need.
    pub fn is_tight(&self) -> bool {
        let state = self.state.borrow();
        state.used >= state.tight_from()
    }

    /// Whether only the last sixteenth is left, which is for flows that exist.
    pub fn is_nearly_full(&self) -> bool {
        let state = self.state.borrow();
        state.used + state.limit / 16 > state.limit
    }

    /// Gives every free slab back to the allocator.
    pub fn trim(&self) {
        for list in &mut self.state.borrow_mut().free {
            *list = Vec::new();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("Pool").field("used", &state.used).field("limit", &state.limit).finish_non_exhaustive()
    }
}

/// Memory that is in no slab, counted against a pool's limit. Dropping it gives it back.
///
/// It is for what cannot be refused when it comes; whoever holds it keeps to [`Pool::share`].
#[derive(Debug)]
pub struct Charge {
    pool: Pool,
    bytes: usize,
}

impl Charge {
    /// No memory.
    pub fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), bytes: 0 }
    }

    /// Counts so many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before == bytes {
            return;
        }
        {
            let mut state = self.pool.state.borrow_mut();
            let used = state.used - before + bytes;
            state.set_used(used);
        }
        if bytes < before {
            self.pool.wake();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A range of bytes in a slab. A clone refers to the same bytes.
///
/// The bytes can be changed only while no other buffer refers to the slab. The slab goes back to its pool with the last
/// buffer that refers to it.
#[derive(Default)]
pub struct Buffer {
    slab: Option<Rc<Slab>>,
    start: u32,
    end: u32,
}

impl Buffer {
    /// A buffer of no bytes and no memory.
    pub const fn empty() -> Self {
        Self { slab: None, start: 0, end: 0 }
    }

    /// Bytes of memory that this buffer keeps from its pool: the whole slab, however short the range is.
    pub fn held(&self) -> usize {
        self.slab.as_ref().map_or(0, |slab| slab.bytes.len())
    }

    /// Whether both buffers lie in the same slab, so that they hold its memory together.
    pub fn shares(&self, other: &Self) -> bool {
        matches!((&self.slab, &other.slab), (Some(a), Some(b)) if Rc::ptr_eq(a, b))
    }

    /// The whole slab and the range of the data in it, for work in place; `None` while the slab is shared.
    pub fn parts_mut(&mut self) -> Option<(&mut [u8], Range<usize>)> {
        let range = self.start as usize..self.end as usize;
        let slab = Rc::get_mut(self.slab.as_mut()?)?;
        Some((&mut slab.bytes, range))
    }

    /// The unused bytes behind the data, up to the tailroom; empty while the slab is shared.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        match self.parts_mut() {
            Some((slab, range)) => {
                let limit = slab.len().saturating_sub(TAILROOM).max(range.end);
                &mut slab[range.end..limit]
            }
            None => &mut [],
        }
    }

    /// How many bytes [`Buffer::append`] still takes, tailroom kept.
    pub fn spare(&self) -> usize {
        match &self.slab {
            Some(slab) if Rc::strong_count(slab) == 1 => {
                slab.bytes.len().saturating_sub(TAILROOM).saturating_sub(self.end as usize)
            }
            _ => 0,
        }
    }

    /// Declares that `n` more bytes behind the data have been written.
    ///
    /// # Panics
    /// If they would lie outside the slab.
    pub fn commit(&mut self, n: usize) {
        let end = self.end as usize + n;
        assert!(end <= self.held(), "committed past the slab");
        self.end = end as u32;
    }

    /// Appends as much of `data` as fits and returns how many bytes that was.
    pub fn append(&mut self, data: &[u8]) -> usize {
        let spare = self.spare_mut();
        let n = data.len().min(spare.len());
        spare[..n].copy_from_slice(&data[..n]);
        self.end += n as u32;
        n
    }

    /// Sets which bytes of the slab are the data.
    ///
    /// # Panics
    /// If the range is reversed or lies outside the slab.
    pub fn set_range(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.held(), "range outside the slab");
        (self.start, self.end) = (range.start as u32, range.end as u32);
    }

    /// A second buffer on `range` of this one's data.
    ///
    /// # Panics
    /// If the range is reversed or lies outside the data.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "range outside the data");
        let (start, end) = (self.start + range.start as u32, self.start + range.end as u32);
        Self { slab: self.slab.clone(), start, end }
    }

    /// Drops the first `n` bytes of the data.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advanced past the data");
        self.start += n as u32;
    }

    /// Keeps the first `n` bytes of the data.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n as u32);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.slab {
            Some(slab) => &slab.bytes[self.start as usize..self.end as usize],
            None => &[],
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self { slab: self.slab.clone(), start: self.start, end: self.end }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(slab) = self.slab.take() else { return };
        if Rc::strong_count(&slab) > 1 {
            return;
        }
        let Some(pool) = slab.pool.upgrade() else { return };
        {
            let mut state = pool.borrow_mut();
            let left = state.used - slab.bytes.len();
            state.set_used(left);
            let class = slab.class;
            let free = &mut state.free[class as usize];
            if free.len() < class.kept() {
                free.push(slab);
            }
        }
        Pool { state: pool }.wake();
    }
}

impl fmt::Debug for Buffer {
    /// Never shows the bytes: they may be somebody's traffic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).field("held", &self.held()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    #[test]
    fn memory_comes_back_with_the_last_buffer() {
        let pool = Pool::new(Class::Large.slab_len());
        let mut whole = pool.take(Class::Large).expect("first");
        assert!(pool.take(Class::Small).is_none(), "over the limit");
        assert_eq!(whole.append(b"hello world"), 11);
        let world = whole.slice(6..11);
        assert!(whole.parts_mut().is_none(), "shared");
        drop(whole);
        assert_eq!((&*world, pool.used()), (&b"world"[..], Class::Large.slab_len()));
        drop(world);
        assert_eq!(pool.used(), 0);
        assert!(pool.take(Class::Large).is_some());
    }

    /// Counts its wake-ups.
    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Tasks that wait for memory.
    struct Tasks<const N: usize> {
        pool: Pool,
        turns: [Turn; N],
        counts: [Arc<Count>; N],
    }

    impl<const N: usize> Tasks<N> {
        fn new(pool: &Pool) -> Self {
            let turns = std::array::from_fn(|_| Turn::default());
            Self { pool: pool.clone(), turns, counts: std::array::from_fn(|_| Arc::default()) }
        }

        fn ask(&mut self, task: usize, class: Class) -> Option<Buffer> {
            let waker = Waker::from(Arc::clone(&self.counts[task]));
            let asked = self.pool.poll_take(&mut Context::from_waker(&waker), class, &mut self.turns[task]);
            match asked {
                Poll::Ready(buffer) => Some(buffer),
                Poll::Pending => None,
            }
        }

        fn woken(&self) -> [u64; N] {
            std::array::from_fn(|task| self.counts[task].0.load(Relaxed))
        }
    }

    #[test]
    fn only_those_are_woken_that_there_is_room_for() {
        let pool = Pool::new(Class::Record.slab_len());
        let mut held: Vec<Buffer> = std::iter::from_fn(|| pool.take(Class::Small)).collect();
        let mut tasks = Tasks::<4>::new(&pool);
        assert!(tasks.ask(0, Class::Record).is_none(), "more than there will be for a while");
        (1..4).for_each(|task| assert!(tasks.ask(task, Class::Small).is_none()));
        held.pop();
        assert_eq!(tasks.woken(), [0, 1, 0, 0]);
        held.pop();
        assert_eq!(tasks.woken(), [0, 1, 1, 0]);
        held.push(tasks.ask(1, Class::Small).expect("room"));
        held.push(tasks.ask(2, Class::Small).expect("room"));
        assert!(tasks.ask(3, Class::Small).is_none());
        assert_eq!(tasks.woken(), [0, 1, 1, 0]);
        held.clear();
        assert_eq!(tasks.woken(), [0, 1, 1, 1], "the first one needs all of it but what is promised");
        drop(tasks.ask(3, Class::Small).expect("room"));
        assert_eq!(tasks.woken(), [1, 1, 1, 1]);
        assert!(tasks.ask(0, Class::Record).is_some());
    }

    #[test]
    fn a_turn_that_is_not_taken_is_passed_on() {
        let pool = Pool::new(Class::Small.slab_len());
        let mut tasks = Tasks::<4>::new(&pool);
        let held = pool.take(Class::Small);
        (0..4).for_each(|task| assert!(tasks.ask(task, Class::Small).is_none()));
        drop(held);
        assert_eq!(tasks.woken(), [1, 0, 0, 0]);
        // Another takes what the first one was woken for: it waits again, before the others.
        let held = pool.take(Class::Small);
        assert!(held.is_some() && tasks.ask(0, Class::Small).is_none());
        drop(held);
        assert_eq!(tasks.woken(), [2, 0, 0, 0]);
        tasks.turns[1].pass();
        tasks.turns[0].pass();
        assert_eq!(tasks.woken(), [2, 0, 1, 0], "one that has left is not woken");
        tasks.turns[2] = Turn::default();
        assert_eq!(tasks.woken(), [2, 0, 1, 1]);
        assert!(tasks.ask(3, Class::Small).is_some());
        assert_eq!(pool.state.borrow().queue.promised, 0);
    }

    #[test]
    fn append_stops_at_the_tailroom() {
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take(Class::Small).expect("room");
        assert_eq!(buffer.append(&[7; 5000]), 4096);
        assert_eq!(buffer.spare(), 0);
        let (slab, range) = buffer.parts_mut().expect("unique");
        assert_eq!((slab.len() - range.end, range.start), (TAILROOM, HEADROOM));
        assert!(pool.copy(&[1; 70_000]).is_none(), "no class takes it");
        assert_eq!(pool.copy(&[1; 5000]).expect("room").held(), Class::Medium.slab_len());
    }

    #[test]
    fn the_share_shrinks_as_the_pool_fills() {
        let pool = Pool::new(8 * Class::Large.slab_len());
        let before = pool.share();
        let held = [pool.take(Class::Large), pool.take(Class::Large)];
        assert!(pool.share() < before && !pool.is_tight());
        let more = pool.take(Class::Large);
        assert!(pool.is_tight() && pool.share() == 0 && !pool.is_nearly_full());
        let rest: Vec<_> = std::iter::from_fn(|| pool.take(Class::Large)).collect();
        assert!(pool.is_nearly_full());
        drop((held, more, rest));
    }
}
