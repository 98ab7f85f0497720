//! A restarted speaker hears all neighbours before it decides anything and speaks (RFC 4724 4.1): until then the kernel has
//! what the earlier process had. I/O: waits for the kernel's lists at the start.

use bgp::session::Time;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::peers::Peer;
use super::{Daemon, Farewell, LISTING};
use crate::kernel;

/// The Selection_Deferral_Timer: neighbours who do not come by then are not waited for. Within the time for which the
/// kernel's side keeps routes.
const SELECTION_DEFERRAL: Time = Time::from_secs(120);
/// The same of a reflector, which does not know whether this is a restart or its first start.
const REFLECTOR_DEFERRAL: Time = Time::from_secs(30);
/// Whom a range lets in is known only when he is there: so long it is waited for any who were before.
const UNNAMED: Time = Time::from_secs(30);

/// A restart, as long as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Restart {
    /// Nothing is decided yet.
    deferred: bool,
    /// Some have no names: nothing is decided before this, though all who have names have told theirs.
    unnamed: Option<Time>,
    /// Then nobody is waited for any more, and what is left of before goes.
    most: Time,
}

/// What is still to be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Missing {
    Nothing,
    /// Of those alone who have restarted, and may wait for this speaker before they tell theirs: two would wait for each
    /// other (RFC 4724 4.1).
    OfRestarted,
    Much,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    /// Decide and speak. What is left of before stays in the kernel: who is not waited for may still come back to it.
    Decide,
    /// What is left of before goes; decide, where that has not been done.
    End,
}

impl Restart {
    /// `unnamed`: there are ranges.
    fn new(now: Time, most: Time, unnamed: bool) -> Restart {
        Restart { deferred: true, unnamed: unnamed.then(|| now + most.min(UNNAMED)), most: now + most }
    }

    fn step(&self, now: Time, missing: Missing) -> Step {
        let early = self.unnamed.is_some_and(|least| now < least);
        if now >= self.most {
            Step::End
        } else if missing == Missing::Much || early {
            Step::Wait
        } else if missing == Missing::Nothing && self.unnamed.is_none() {
            Step::End
        } else if self.deferred {
            Step::Decide
        } else {
            Step::Wait
        }
    }

    /// When it is to be looked at.
    fn due(&self, now: Time) -> Time {
        self.unnamed.filter(|least| self.deferred && now < *least).unwrap_or(self.most)
    }
}

impl Daemon {
    /// Takes what the kernel had at the start; routes of ours among it mean that this is a restart.
    pub(super) async fn listed(&mut self, farewell: Farewell, shutdown: &CancellationToken) {
        let Some(mut hands) = self.hands.take() else {
            // No packet goes through a reflector: neighbours who kept its routes may go on with them, if it ended so that
            // they did.
            if farewell == Farewell::KeepRoutes {
                self.defer(REFLECTOR_DEFERRAL);
            }
            return;
        };
        let end = async {
            while let Some(news) = hands.news.recv().await {
                if news == kernel::Event::Listed {
                    return true;
                }
                self.news(news);
            }
            false
        };
        let listed = tokio::select! {
            () = shutdown.cancelled() => return,
            listed = timeout(LISTING, end) => listed,
        };
        if listed != Ok(true) {
            tracing::error!("the kernel has not told its routes: going on without what was there before");
        }
        let kept = hands.status.borrow().kept;
        if kept > 0 && self.config.kernel.routes {
            tracing::info!(routes = kept, "restarted: routes of before are in the kernel, and stay until all is heard");
            self.defer(SELECTION_DEFERRAL);
        } else {
            self.fib.loaded();
        }
        self.hands = Some(hands);
    }

    fn defer(&mut self, most: Time) {
        self.restart = Some(Restart::new(self.now(), most, self.has_ranges()));
        self.rib.hold_back(true);
    }

    /// Whether nothing is decided yet, as not all has been heard.
    pub(super) fn is_deferred(&self) -> bool {
        self.restart.is_some_and(|restart| restart.deferred)
    }

    /// When there is something to do.
    pub(super) fn restart_due(&self) -> Option<Time> {
        self.restart.map(|restart| restart.due(self.now()))
    }

    /// There are other neighbours: without a range nobody unnamed is waited for any more, and maybe nobody at all.
    pub(super) fn others_are_waited_for(&mut self) {
        let ranges = self.has_ranges();
        if let Some(restart) = &mut self.restart {
            restart.unnamed = restart.unnamed.filter(|_| ranges);
        }
        self.deferral_over();
    }

    fn has_ranges(&self) -> bool {
        self.config.dynamic.iter().any(|range| range.peering.enabled)
    }

    /// Something has been heard, or a time is over: whether that was all that is waited for.
    pub(super) fn deferral_over(&mut self) {
        let Some(restart) = self.restart else { return };
        let missing = match self.rib.awaits_next_hops() {
            // A route whose next hop has not been found yet would be missing in the kernel for a moment.
            true => Missing::Much,
            false => self.peers.iter().map(|(_, peer)| missing(peer)).max().unwrap_or(Missing::Nothing),
        };
        let step = restart.step(self.now(), missing);
        if step == Step::Wait {
            return;
        }
        self.restart = (step == Step::Decide).then_some(Restart { deferred: false, ..restart });
        if restart.deferred {
            if missing == Missing::Much {
                tracing::warn!("not all neighbours have told their routes since the restart: deciding without them");
            } else if self.peers.keys().is_empty() {
                tracing::info!("there is no neighbour to wait for after the restart");
            } else {
                tracing::info!("all neighbours have told their routes since the restart");
            }
            self.rib.hold_back(false);
            self.ready.extend(self.peers.keys());
            self.settle();
        }
        if step == Step::End {
            self.fib.loaded();
        }
    }
}

/// What a neighbour is still to tell.
fn missing(peer: &Peer) -> Missing {
    let Some(negotiated) = peer.session.negotiated() else {
        let comes = peer.peering().enabled && peer.range.is_none();
        return if comes { Missing::Much } else { Missing::Nothing };
    };
    match &negotiated.restart {
        _ if negotiated.families().without(peer.session.told()).is_empty() => Missing::Nothing,
        Some(restart) if restart.restarted => Missing::OfRestarted,
        Some(_) => Missing::Much,
        // Of one who keeps no routes over a restart there is no End-of-RIB to wait for.
        None => Missing::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Time = Time::from_secs(1);

    #[test]
    fn where_all_have_names_it_ends_when_the_last_has_told_his() {
        let restart = Restart::new(SECOND, SELECTION_DEFERRAL, false);
        assert_eq!(restart.step(SECOND * 2, Missing::Much), Step::Wait);
        assert_eq!(restart.step(SECOND * 2, Missing::Nothing), Step::End);
        assert_eq!((restart.due(SECOND), restart.step(SECOND * 121, Missing::Much)), (SECOND * 121, Step::End));
    }

    #[test]
    fn who_has_restarted_is_not_waited_for_but_what_he_told_before_stays_for_him() {
        let restart = Restart::new(SECOND, SELECTION_DEFERRAL, false);
        assert_eq!(restart.step(SECOND * 2, Missing::OfRestarted), Step::Decide);
        let decided = Restart { deferred: false, ..restart };
        assert_eq!(decided.step(SECOND * 3, Missing::OfRestarted), Step::Wait);
        assert_eq!(decided.step(SECOND * 3, Missing::Much), Step::Wait);
        assert_eq!(decided.step(SECOND * 3, Missing::Nothing), Step::End);
        assert_eq!(decided.step(SECOND * 121, Missing::OfRestarted), Step::End);
    }

    #[test]
    fn who_has_no_name_is_waited_for_and_may_be_late() {
        let restart = Restart::new(SECOND, SELECTION_DEFERRAL, true);
        assert_eq!((restart.due(SECOND), restart.step(SECOND * 30, Missing::Nothing)), (SECOND * 31, Step::Wait));
        assert_eq!((restart.due(SECOND * 31), restart.step(SECOND * 31, Missing::Much)), (SECOND * 121, Step::Wait));
        assert_eq!(restart.step(SECOND * 31, Missing::Nothing), Step::Decide);
        let decided = Restart { deferred: false, ..restart };
        let step = decided.step(SECOND * 32, Missing::Nothing);
        assert_eq!((decided.due(SECOND * 31), step), (SECOND * 121, Step::Wait));
        assert_eq!(decided.step(SECOND * 121, Missing::Nothing), Step::End);
        let reflector = Restart::new(SECOND, REFLECTOR_DEFERRAL, true);
        let steps = [30, 31].map(|n| reflector.step(SECOND * n, Missing::Nothing));
        assert_eq!(steps, [Step::Wait, Step::End]);
    }
}
