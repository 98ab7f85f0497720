//! The tasks of the components: each can be told to stop, and each end is noticed, a panic too. What may be started
//! again by itself, and when, is decided here ([`Restarts`]); [`super::Assembly`] does it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::crash;

/// Components stop one after the other, each within this time; a slower one is left to the kernel.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Every part that runs.
#[derive(Default)]
pub struct Parts {
    running: Vec<(&'static str, CancellationToken)>,
    tasks: JoinSet<(&'static str, Result<()>)>,
}

impl Parts {
    /// Runs a part until its token is cancelled or it ends by itself.
    pub fn run<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let task = run(self.token(name));
        self.spawn(name, task);
    }

    /// A token for a part whose task is spawned later.
    pub fn token(&mut self, name: &'static str) -> CancellationToken {
        let stop = CancellationToken::new();
        self.running.push((name, stop.clone()));
        stop
    }

    /// The task of a part that has its token.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        #[cfg(debug_assertions)]
        let task = breaking(name, task);
        let caught = AssertUnwindSafe(crash::COMPONENT.scope(name, task)).catch_unwind();
        self.tasks.spawn(async move { (name, caught.await.unwrap_or_else(|_| Err(Panicked.into()))) });
    }

    /// Returns when a part has ended by itself: its name, and why. What else it had started is told to stop.
    pub async fn ended(&mut self) -> (&'static str, anyhow::Error) {
        let (name, ended) = match self.tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => ("daemon", Err(anyhow!("a task broke off: {error}"))),
            None => std::future::pending().await,
        };
        self.drop_token(name);
        (name, ended.err().unwrap_or_else(|| anyhow!("it ended")))
    }

    fn drop_token(&mut self, name: &'static str) {
        self.running.retain(|(other, stop)| {
            if *other == name {
                stop.cancel();
            }
            *other != name
        });
    }

    /// Stops every part, the last that was started first.
    pub async fn stop_all(&mut self) {
        while let Some((name, _)) = self.running.last() {
            let name = *name;
            self.stop(name).await;
        }
    }

    pub async fn stop(&mut self, name: &'static str) {
        if !self.running.iter().any(|(other, _)| *other == name) {
            return;
        }
        self.drop_token(name);
        let ended = async {
            while let Some(done) = self.tasks.join_next().await {
                if done.is_ok_and(|(n, _)| n == name) {
                    break;
                }
            }
        };
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            tracing::warn!(component = name, "did not stop in time");
        }
    }
}

/// In debug builds a test may name a part that panics once, a moment after its start.
#[cfg(debug_assertions)]
async fn breaking(name: &str, task: impl Future<Output = Result<()>>) -> Result<()> {
    use std::sync::atomic::{AtomicBool, Ordering};
    const VARIABLE: &str = "FERROKUBE_TEST_PANIC";
    const MOMENT: Duration = Duration::from_secs(5);
    static BROKE: AtomicBool = AtomicBool::new(false);
    if std::env::var(VARIABLE).as_deref() != Ok(name) || BROKE.swap(true, Ordering::Relaxed) {
        return task.await;
    }
    tokio::select! {
        ended = task => ended,
        () = tokio::time::sleep(MOMENT) => panic!("as {VARIABLE} says"),
    }
}

/// The panic's own words are in the log, and told by the hook.
#[derive(Debug, thiserror::Error)]
#[error("it panicked")]
pub struct Panicked;

/// Which components are to be started again, and when.
#[derive(Default)]
pub struct Restarts {
    known: BTreeMap<&'static str, (Backoff, Instant)>,
    due: Vec<(Instant, &'static str)>,
}

/// What of a component that ended still holds a port is let go of within this time.
const LET_GO: Duration = Duration::from_millis(200);

impl Restarts {
    /// A component was started.
    pub fn started(&mut self, name: &'static str, now: Instant) {
        self.known.entry(name).or_insert((Backoff::default(), now)).1 = now;
    }

    /// It ended by itself, or could not be started: the pause until it is started again.
    pub fn ended(&mut self, name: &'static str, now: Instant) -> Duration {
        let (backoff, started) = self.known.entry(name).or_insert((Backoff::default(), now));
        let pause = backoff.after(now.saturating_duration_since(*started)).max(LET_GO);
        self.due.push((now + pause, name));
        pause
    }

    /// Returns when a component is to be started.
    pub async fn next(&mut self) -> &'static str {
        let Some((at, name)) = self.due.iter().min().copied() else { return std::future::pending().await };
        tokio::time::sleep_until(at.into()).await;
        self.due.retain(|due| *due != (at, name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_named_and_the_others_go_on() {
        let mut parts = Parts::default();
        parts.run("steady", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        let (sent, mut heard) = tokio::sync::oneshot::channel();
        parts.run("frail", |stop| async move {
            tokio::spawn(async move {
                stop.cancelled().await;
                let _ = sent.send(());
            });
            tokio::task::yield_now().await;
            panic!("as a test wants it")
        });
        parts.run("failing", |_| async { Err(anyhow!("no port")) });
        let mut ends = [parts.ended().await, parts.ended().await].map(|(name, why)| (name, why.to_string()));
        ends.sort();
        assert_eq!(ends, [("failing", "no port".to_owned()), ("frail", "it panicked".to_owned())]);
        tokio::time::timeout(Duration::from_secs(5), &mut heard).await.expect("told to stop").expect("heard");
        assert_eq!(parts.running.len(), 1);
        parts.stop_all().await;
        assert!(parts.tasks.is_empty() && parts.running.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_ends_again_and_again_is_started_less_often() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            restarts.started("dns", now);
            pauses.push(restarts.ended("dns", now).as_millis());
            assert_eq!(restarts.next().await, "dns");
            now += Duration::from_secs(1);
        }
        assert_eq!(pauses, [200, 1000, 2000, 4000]);
        assert!(restarts.next().now_or_never().is_none(), "nothing else is due");
    }
}
