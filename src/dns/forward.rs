//! The table by which the queries of many apps share one stream to a resolver.
//!
//! Every query gets a random id of its own; its answer is found by that id together with the question, and goes back to
//! the sender under the id that the sender chose. Pure: time and randomness come in as arguments.

use super::message::{self, Header, MessageError, Question};
use crate::entropy::Entropy;
use crate::time::Moment;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How long a query waits for its answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many queries of one resolver wait at most. Beyond it the oldest is forgotten.
pub const MAX_OUTSTANDING: usize = 1024;

/// The queries that wait for one resolver's answers. `S` names a query's sender (an app's address and port).
#[derive(Debug)]
pub struct Outstanding<S> {
    limit: usize,
    entries: HashMap<u16, Entry<S>>,
    /// Ids in the order of their deadlines; ids whose query is answered stay until they come to the front.
    order: VecDeque<Due>,
    serial: u64,
}

#[derive(Debug)]
struct Entry<S> {
    sender: S,
    id: u16,
    question: Question,
    serial: u64,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Moment,
    id: u16,
    serial: u64,
}

/// A query that nobody answered in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired<S> {
    /// Who sent it.
    pub sender: S,
    /// The SERVFAIL response that says so.
    pub response: Vec<u8>,
}

impl<S> Outstanding<S> {
    /// Makes an empty table for [`MAX_OUTSTANDING`] queries.
    pub fn new() -> Self {
        Self::with_limit(MAX_OUTSTANDING)
    }

    /// Makes an empty table for `limit` queries, at least 1 and at most 32,768.
    pub fn with_limit(limit: usize) -> Self {
        let limit = limit.clamp(1, 1 << 15);
        Self { limit, entries: HashMap::new(), order: VecDeque::new(), serial: 0 }
    }

    /// How many queries wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Enters a query of `sender` and makes it ready to be sent: a new id, the announced UDP size clamped. The length
    /// stays the same.
    ///
    /// # Errors
    /// The message is not an ordinary query with one question; it should not be sent.
    pub fn enter(
        &mut self,
        now: Moment,
        sender: S,
        query: &mut [u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(), MessageError> {
        let header = Header::parse(query)?;
        if !header.is_standard() {
            return Err(MessageError::Direction);
        }
        let question = message::clamp_udp_size(query)?;
        if self.entries.len() >= self.limit {
            self.forget_oldest();
        }
        let id = self.free_id(entropy);
        message::set_id(query, id);
        self.serial += 1;
        let serial = self.serial;
        self.entries.insert(id, Entry { sender, id: header.id, question, serial });
        self.order.push_back(Due { at: now + ANSWER_TIMEOUT, id, serial });
        self.tidy();
        Ok(())
    }

    /// Finds whom a response is for and gives it the sender's own id back; `None` if nobody waits for it.
    ///
    /// A response that repeats no question is accepted by its id alone if it is an error, which is how some servers
    /// say that they cannot read a query.
    pub fn answer(&mut self, response: &mut [u8]) -> Option<S> {
        let header = Header::parse(response).ok().filter(|header| header.is_response())?;
        let entry = self.entries.get(&header.id)?;
        let fits = match Question::parse(response) {
            Ok(question) => question == entry.question,
            Err(_) => header.is_bare() && header.rcode() != message::Rcode::NO_ERROR,
        };
        if !fits {
            return None;
        }
        let entry = self.entries.remove(&header.id)?;
        message::set_id(response, entry.id);
        self.tidy();
        Some(entry.sender)
    }

    /// When [`Outstanding::handle_timeout`] has something to do; `None` while nothing waits.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.order.front().map(|due| due.at)
    }

    /// Takes out one query whose time is over. To be called until it returns `None`.
    pub fn handle_timeout(&mut self, now: Moment) -> Option<Expired<S>> {
        if self.order.front()?.at > now {
            return None;
        }
        let entry = self.forget_oldest()?;
        Some(Expired { response: message::serv_fail(entry.id, &entry.question), sender: entry.sender })
    }

    /// Takes out every query, because their stream is gone; the next one enters an empty table.
    pub fn drain(&mut self) -> impl Iterator<Item = Expired<S>> + '_ {
        self.order.clear();
        self.entries.drain().map(|(_, entry)| Expired {
            response: message::serv_fail(entry.id, &entry.question),
            sender: entry.sender,
        })
    }

    fn forget_oldest(&mut self) -> Option<Entry<S>> {
        // The front is always live: `tidy` runs after every change.
        let due = self.order.pop_front()?;
        let entry = self.entries.remove(&due.id);
        self.tidy();
        entry
    }

    /// Drops ids of answered queries from the front, and from everywhere once they are the larger part.
    fn tidy(&mut self) {
        let entries = &self.entries;
        let live = |due: &Due| entries.get(&due.id).is_some_and(|entry| entry.serial == due.serial);
        while self.order.front().is_some_and(|due| !live(due)) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.limit {
            self.order.retain(live);
        }
    }

    fn free_id(&self, entropy: &mut dyn Entropy) -> u16 {
        // At most half of the ids are taken, so this ends after two draws on average; counting up from there ends surely.
        let mut id = entropy.next_u32() as u16;
        for _ in 0..64 {
            if !self.entries.contains_key(&id) {
                return id;
            }
            id = entropy.next_u32() as u16;
        }
        while self.entries.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        id
    }
}

impl<S> Default for Outstanding<S> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Name, Rcode, TYPE_A, TYPE_AAAA, query};
    use super::*;
    use crate::entropy::SeededEntropy;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        query(0x0101, &Name::from_text(name).expect("legal"), kind)
    }

    fn reply(query: &[u8]) -> Vec<u8> {
        let mut out = query.to_vec();
        out[2] |= 0x80;
        out
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    #[test]
    fn answers_go_to_their_senders_under_their_own_ids() {
        let mut table = Outstanding::new();
        let mut entropy = SeededEntropy::new(3);
        let mut sent: Vec<_> = (0..100).map(|i| (i, ask(&format!("host{i}.example"), TYPE_A))).collect();
        for (sender, query) in &mut sent {
            table.enter(at(0), *sender, query, &mut entropy).expect("a query");
        }
        for (sender, query) in sent.iter().rev() {
            let mut response = reply(query);
            assert_eq!(table.answer(&mut response), Some(*sender));
            assert_eq!(response, reply(&ask(&format!("host{sender}.example"), TYPE_A)));
            assert_eq!(table.answer(&mut reply(query)), None, "answered once");
        }
        assert!(table.is_empty() && table.poll_timeout().is_none());
    }

    #[test]
    fn the_question_must_match_too() {
        let mut table = Outstanding::new();
        let mut entropy = SeededEntropy::new(4);
        let mut real = ask("a.example", TYPE_A);
        table.enter(at(0), 'a', &mut real, &mut entropy).expect("a query");
        let id = Header::parse(&real).expect("header").id;
        for forged in [ask("b.example", TYPE_A), ask("a.example", TYPE_AAAA)] {
            let mut forged = reply(&forged);
            message::set_id(&mut forged, id);
            assert_eq!(table.answer(&mut forged), None);
        }
        assert_eq!(table.answer(&mut real.clone()), None, "a query is no answer");
        let upper: Vec<u8> = reply(&real).iter().map(|b| if *b == b'a' { b'A' } else { *b }).collect();
        assert_eq!(table.answer(&mut upper.clone()), Some('a'), "case does not count");
    }

    #[test]
    fn a_bare_error_is_accepted_a_bare_success_is_not() {
        let mut table = Outstanding::new();
        let mut query = ask("a.example", TYPE_A);
        table.enter(at(0), 'a', &mut query, &mut SeededEntropy::new(5)).expect("a query");
        let mut bare = query[..12].to_vec();
        bare[2..6].copy_from_slice(&[0x80, 0, 0, 0]);
        assert_eq!(table.answer(&mut bare.clone()), None);
        bare[3] = 1;
        assert_eq!(table.answer(&mut bare), Some('a'));
    }

    #[test]
    fn silence_ends_in_a_failure_after_five_seconds() {
        let mut table = Outstanding::new();
        let mut entropy = SeededEntropy::new(6);
        table.enter(at(1), 1, &mut ask("a.example", TYPE_A), &mut entropy).expect("a query");
        table.enter(at(3), 2, &mut ask("b.example", TYPE_A), &mut entropy).expect("a query");
        assert_eq!(table.poll_timeout(), Some(at(6)));
        assert_eq!(table.handle_timeout(at(5)), None);
        let expired = table.handle_timeout(at(6)).expect("due");
        let header = Header::parse(&expired.response).expect("header");
        assert_eq!((expired.sender, header.id, header.rcode()), (1, 0x0101, Rcode::SERV_FAIL));
        assert_eq!((table.handle_timeout(at(6)), table.poll_timeout()), (None, Some(at(8))));
        assert_eq!(table.drain().map(|expired| expired.sender).collect::<Vec<_>>(), [2]);
        assert_eq!(table.poll_timeout(), None);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut table = Outstanding::with_limit(8);
        let mut entropy = SeededEntropy::new(7);
        let mut sent = Vec::new();
        for sender in 0..20 {
            let mut query = ask("a.example", TYPE_A);
            table.enter(at(sender), sender, &mut query, &mut entropy).expect("a query");
            sent.push(query);
        }
        assert_eq!((table.len(), table.poll_timeout()), (8, Some(at(17))));
        let answered: Vec<_> = sent.iter().filter_map(|query| table.answer(&mut reply(query))).collect();
        assert_eq!(answered, (12..20).collect::<Vec<_>>());
    }

    #[test]
    fn answered_queries_leave_nothing_behind_one_that_waits() {
        let mut table = Outstanding::with_limit(8);
        let mut entropy = SeededEntropy::new(8);
        table.enter(at(0), 0, &mut ask("slow.example", TYPE_A), &mut entropy).expect("a query");
        for sender in 1..10_000 {
            let mut query = ask("quick.example", TYPE_A);
            table.enter(at(1), sender, &mut query, &mut entropy).expect("a query");
            assert_eq!(table.answer(&mut reply(&query)), Some(sender));
            assert!(table.order.len() <= 17);
        }
        assert_eq!((table.len(), table.poll_timeout()), (1, Some(at(5))));
    }

    #[test]
    fn only_queries_enter() {
        let mut table = Outstanding::new();
        let mut entropy = SeededEntropy::new(9);
        let mut notify = ask("a.example", TYPE_A);
        notify[2] |= 0x20;
        for mut bytes in [reply(&ask("a.example", TYPE_A)), vec![0; 12], vec![1; 5], notify] {
            let before = bytes.clone();
            assert!(table.enter(at(0), 0, &mut bytes, &mut entropy).is_err());
            assert!(table.is_empty() && bytes == before);
        }
    }

    #[test]
    fn no_mutation_panics() {
        let mut table = Outstanding::with_limit(16);
        let mut entropy = SeededEntropy::new(10);
        for round in 0..30_000_u64 {
            let mut query = ask("host.example", TYPE_A);
            let at_byte = entropy.below(query.len() as u32) as usize;
            query[at_byte] = entropy.next_u32() as u8;
            let entered = table.enter(Moment::from_millis(round), round, &mut query, &mut entropy).is_ok();
            let mut response = reply(&query);
            if entropy.below(2) == 0 {
                let at_byte = entropy.below(response.len() as u32) as usize;
                response[at_byte] ^= 1 << entropy.below(8);
            } else if entered {
                assert_eq!(table.answer(&mut response.clone()), Some(round));
            }
            table.answer(&mut response);
            while table.handle_timeout(Moment::from_millis(round)).is_some() {}
            assert!(table.len() <= 16);
        }
    }
}
