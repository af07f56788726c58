//! Happy Eyeballs (RFC 8305): several addresses of one name, tried in turn and overlapping; the first that answers wins.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long an attempt runs alone before the next one starts beside it (RFC 8305, section 5).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// Orders addresses so that the families alternate, beginning with the family of the first one. Order inside a family
/// stays; duplicates go.
pub(crate) fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut unique: Vec<IpAddr> = Vec::with_capacity(addresses.len());
    for ip in addresses {
        if !unique.contains(ip) {
            unique.push(*ip);
        }
    }
    let first_is_v6 = unique.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<IpAddr>, Vec<IpAddr>) =
        unique.into_iter().partition(|ip| ip.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return ordered,
            (a, b) => ordered.extend(a.into_iter().chain(b)),
        }
    }
}

/// Runs `connect` for each of `remotes`, the next one when the last has failed or [`STAGGER`] has passed, and returns
/// the first success; the other attempts are dropped.
///
/// # Errors
/// The first attempt's error when all have failed; `None` if there was nothing to try.
pub(crate) async fn race<T, E, F>(
    remotes: &[SocketAddr],
    mut connect: impl FnMut(SocketAddr) -> F,
) -> Result<T, Option<E>>
where
    F: Future<Output = Result<T, E>>,
{
    if let [remote] = remotes {
        return connect(*remote).await.map_err(Some);
    }
    let mut waiting = remotes.iter();
    let mut running: Vec<Pin<Box<F>>> = Vec::with_capacity(remotes.len());
    let mut first_error = None;
    let mut next_start = pin!(sleep_until(Instant::now()));
    poll_fn(|cx| {
        loop {
            let mut index = 0;
            let mut failed = false;
            while let Some(attempt) = running.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(winner)) => return Poll::Ready(Ok(winner)),
                    Poll::Ready(Err(error)) => {
                        first_error.get_or_insert(error);
                        drop(running.swap_remove(index));
                        failed = true;
                    }
                    Poll::Pending => index += 1,
                }
            }
            if waiting.len() == 0 {
                return if running.is_empty() { Poll::Ready(Err(first_error.take())) } else { Poll::Pending };
            }
            if !failed && !running.is_empty() && next_start.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(remote) = waiting.next() else { continue };
            running.push(Box::pin(connect(*remote)));
            next_start.as_mut().reset(Instant::now() + STAGGER);
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn remotes(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("literal")).collect()
    }

    /// Runs a race in which each address answers after so many milliseconds; returns who won, when, and the starts.
    async fn run(script: &[(&str, u64, bool)]) -> (Result<SocketAddr, Option<usize>>, u64, Vec<u64>) {
        let list = remotes(&script.iter().map(|(addr, ..)| *addr).collect::<Vec<_>>());
        let begin = Instant::now();
        let starts = RefCell::new(Vec::new());
        let result = race(&list, |remote| {
            let index = list.iter().position(|addr| *addr == remote).expect("known");
            let (_, millis, works) = script[index];
            starts.borrow_mut().push(begin.elapsed().as_millis() as u64);
            async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                if works { Ok(remote) } else { Err(index) }
            }
        })
        .await;
        (result, begin.elapsed().as_millis() as u64, starts.into_inner())
    }

    #[test]
    fn families_alternate_from_the_first_one() {
        let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("ip")).collect::<Vec<IpAddr>>();
        let list = ips(&["::1", "::2", "::2", "::3", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(interleave(&list), ips(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]));
        assert_eq!(interleave(&[]), Vec::<IpAddr>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_family_starts_after_the_stagger_and_wins() {
        let (won, at, starts) =
            run(&[("[::1]:1", 9000, true), ("10.0.0.1:1", 40, true), ("[::2]:1", 1, true)]).await;
        assert_eq!(won, Ok("10.0.0.1:1".parse().expect("literal")));
        assert_eq!((at, starts), (290, vec![0, 250]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once() {
        let (won, at, starts) = run(&[("[::1]:1", 10, false), ("10.0.0.1:1", 5, true)]).await;
        assert_eq!((won.is_ok(), at, starts), (true, 15, vec![0, 10]));
    }

    #[tokio::test(start_paused = true)]
    async fn all_failures_report_the_first_one() {
        let script = [("[::1]:1", 600, false), ("10.0.0.1:1", 300, false), ("10.0.0.2:1", 100, false)];
        let (won, at, starts) = run(&script).await;
        assert_eq!((won, at, starts), (Err(Some(1)), 600, vec![0, 250, 500]));
        assert_eq!(run(&[]).await.0, Err(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_still_wins_when_it_answers_first() {
        let (won, at, starts) = run(&[("[::1]:1", 400, true), ("10.0.0.1:1", 4000, true)]).await;
        assert_eq!((won, at, starts), (Ok("[::1]:1".parse().expect("literal")), 400, vec![0, 250]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_losers_are_given_up_when_one_has_won() {
        let list = remotes(&["[::1]:1", "10.0.0.1:1", "[::2]:1"]);
        let running = std::rc::Rc::new(());
        let won = race(&list, |remote| {
            let running = std::rc::Rc::clone(&running);
            let wait = if remote == list[1] { 600 } else { 9000 };
            async move {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                drop(running);
                Ok::<_, ()>(remote)
            }
        })
        .await;
        assert_eq!(won, Ok(list[1]));
        assert_eq!(std::rc::Rc::strong_count(&running), 1, "nobody tries on");
    }
}
