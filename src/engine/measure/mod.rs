//! Measuring servers without a tunnel: one request through each config, several at a time, on one thread.

mod fetch;
mod url;

use super::api::{MeasureRequest, NoPlatform, Platform};
use super::host::HostQueue;
use super::pending::Pending;
use super::runner::starved;
use crate::config::Tls;
use crate::error::{Error, ErrorKind};
use fetch::Bench;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;
use url::Url;

/// The most configs that are measured at a time.
const PARALLEL: usize = 128;
/// How long the answer waits for a callback that has not returned.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was measured of each config, in the order of the request.
pub type Measured = Vec<Result<Duration, Error>>;

/// Fetches an address through each config and tells how long it took, from the dial to the head of the HTTP answer,
/// whatever its status. Needs no running tunnel; one thread measures all, and is gone when the answer is there. Of each
/// config the first outbound that dials a server is measured, or, without one, the first freedom.
///
/// Dropping the answer ends the measuring. A callback of `platform` that never returns keeps a thread, not the answer.
///
/// # Errors
/// `Misuse`: an address that is neither `http://` nor `https://`, no timeout, a `parallel` that is not 1 to 128;
/// `ResourceLimit` without a thread. A config's own failure is in its place.
pub fn measure(
    request: MeasureRequest,
    platform: Option<Arc<dyn Platform>>,
) -> Pending<Result<Measured, Error>> {
    measure_trusting(request, platform, Tls::default())
}

/// Measures; `tls`: who is trusted behind an `https://` address.
fn measure_trusting(
    request: MeasureRequest,
    platform: Option<Arc<dyn Platform>>,
    tls: Tls,
) -> Pending<Result<Measured, Error>> {
    let queue = Arc::<HostQueue>::default();
    let refuse = |error| Pending::ready(&queue, lost, Err(error));
    let url = match Url::parse(&request.url) {
        Ok(url) => url,
        Err(error) => return refuse(error),
    };
    if request.timeout.is_zero() {
        return refuse(Error::new(ErrorKind::Misuse, "the timeout is zero: nothing answers at once"));
    }
    if !(1..=PARALLEL).contains(&request.parallel) {
        let text = format!("parallel is {}, and has to be 1 to {PARALLEL}", request.parallel);
        return refuse(Error::new(ErrorKind::Misuse, text));
    }
    let platform = platform.unwrap_or_else(|| Arc::new(NoPlatform));
    let (reply, answer) = Pending::new(&queue, lost);
    let thread = Arc::new(Mutex::new(None));
    let (own, served) = (Arc::clone(&thread), Arc::clone(&queue));
    let body = move || {
        // A panic drops the reply, and the answer tells of it.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // A host that panics here is asked about every socket.
            let asked = catch_unwind(AssertUnwindSafe(|| platform.protects_sockets())).unwrap_or(true);
            match Bench::new(platform, asked, served, url, request.timeout, &tls) {
                Ok(bench) => run(Rc::new(bench), request.configs, request.parallel, reply, &own),
                // Who asked may have given up.
                Err(error) => drop(reply.send(Err(error))),
            }
        }));
    };
    let mut slot = lock(&thread);
    match Builder::new().name("vmk-measure".into()).spawn(body) {
        Ok(handle) => *slot = Some(handle),
        Err(error) => return refuse(starved(&error)),
    }
    drop(slot);
    answer.settled_by(move |_| {
        let handle = lock(&thread).take();
        // Not on that thread itself, where the waker of a careless executor may take the answer.
        if let Some(handle) = handle.filter(|handle| handle.thread().id() != thread::current().id()) {
            // Its panics were caught.
            let _ = handle.join();
        }
    })
}

/// The body of the thread: measures, leaves nothing behind, answers.
fn run(
    bench: Rc<Bench>,
    configs: Vec<String>,
    parallel: usize,
    mut reply: oneshot::Sender<Result<Measured, Error>>,
    own: &Mutex<Option<JoinHandle<()>>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(reply.send(Err(starved(&error)))),
    };
    runtime.block_on(async {
        let tasks = LocalSet::new();
        let measured = tokio::select! {
            biased;
            () = reply.closed() => None,
            measured = tasks.run_until(measure_all(&bench, configs, parallel)) => Some(measured),
        };
        drop(tasks);
        bench.host().close();
        if timeout(PATIENCE, bench.host().gone()).await.is_err() {
            // A callback is stuck: whoever takes the answer is not to wait for this thread.
            drop(lock(own).take());
        }
        if let Some(measured) = measured {
            // Who asked may have given up.
            let _ = reply.send(Ok(measured));
        }
        bench.host().gone().await;
    });
}

/// Measures every config, `parallel` at a time.
async fn measure_all(bench: &Rc<Bench>, configs: Vec<String>, parallel: usize) -> Measured {
    let unmeasured = Error::new(ErrorKind::Internal, "the measuring of a config panicked; this is a defect");
    let mut measured = vec![Err(unmeasured); configs.len()];
    let mut configs = configs.into_iter().enumerate();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < parallel {
            let Some((at, config)) = configs.next() else { break };
            let bench = Rc::clone(bench);
            tasks.spawn_local(async move { (at, bench.measure(&config).await) });
        }
        match tasks.join_next().await {
            Some(Ok((at, result))) => measured[at] = result,
            // Its panic has been told by what stands in its place.
            Some(Err(_)) => {}
            None => return measured,
        }
    }
}

/// The answer of a thread that has panicked.
fn lost<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Internal, "the measuring thread panicked; this is a defect"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
