//! DNS messages and time answers: queries of apps, answers of resolvers, both against the table that joins them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::dns::forward::{ANSWER_TIMEOUT, Outstanding};
use vmesskit::dns::message::{
    self, Header, MAX_UDP_ANSWER, Question, clamp_udp_size, query, read_answer, serv_fail,
};
use vmesskit::dns::sntp;
use vmesskit::entropy::SeededEntropy;
use vmesskit::time::Moment;
use vmesskit_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let len = usize::from(input.short());
    let (asked, answered) = (input.take(len), input.0);
    judge(asked);
    judge(answered);
    forward(asked, answered);
    let _ = sntp::answer(asked, u64::from_be_bytes([7; 8]));
});

fn judge(data: &[u8]) {
    let question = Question::parse(data);
    if let Ok(question) = &question {
        assert!(Header::parse(data).is_ok());
        assert!(question.name.as_wire().len() <= 255);
        let failure = serv_fail(7, question);
        assert_eq!(Question::parse(&failure).as_ref(), Ok(question), "a question is written as it was read");
        assert!(Header::parse(&failure).is_ok_and(|header| header.id == 7 && header.is_response()));
        let again = Question::parse(&query(7, &question.name, question.kind)).expect("a name is written");
        assert_eq!((again.name, again.kind), (question.name.clone(), question.kind));
        assert!(!question.name.to_string().is_empty());
    }
    let mut clamped = data.to_vec();
    if let Ok(found) = clamp_udp_size(&mut clamped) {
        assert_eq!(Ok(&found), question.as_ref());
        assert_eq!(clamped.len(), data.len());
        let once = clamped.clone();
        assert_eq!(clamp_udp_size(&mut clamped), Ok(found));
        assert_eq!(clamped, once, "once is enough");
        let changed = once.iter().zip(data).filter(|(a, b)| a != b).count();
        assert!(changed <= MAX_UDP_ANSWER.to_be_bytes().len());
    } else {
        assert_eq!(clamped, data, "what is no query stays as it is");
    }
    if let Ok(answer) = read_answer(data) {
        assert!(question.is_ok());
        assert!(answer.addresses.len() <= data.len() / 4);
        assert!(answer.ttl == 0 || !answer.addresses.is_empty());
    }
}

fn forward(asked: &[u8], answered: &[u8]) {
    let (mut table, mut entropy, now) = (Outstanding::new(), SeededEntropy::new(1), Moment::from_millis(0));
    let mut sent = asked.to_vec();
    if table.enter(now, 1, &mut sent, &mut entropy).is_err() {
        return assert!(table.is_empty());
    }
    assert_eq!((table.len(), sent.len()), (1, asked.len()));
    let own = Header::parse(asked).expect("it was entered").id;
    let mut answer = answered.to_vec();
    message::set_id(&mut answer, Header::parse(&sent).expect("it was entered").id);
    match table.answer(&mut answer) {
        Some(sender) => {
            assert_eq!((sender, Header::parse(&answer).map(|header| header.id)), (1, Ok(own)));
            assert!(table.is_empty() && table.poll_timeout().is_none());
        }
        None => {
            let expired = table.handle_timeout(now + ANSWER_TIMEOUT).expect("it is over");
            assert_eq!(Header::parse(&expired.response).map(|header| header.id), Ok(own));
            assert!(table.is_empty());
        }
    }
}
