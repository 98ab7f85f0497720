//! A restarted speaker hears all neighbours before it decides anything and speaks (RFC 4724 4.1): until then the kernel has
//! what the earlier process had. I/O: waits for the kernel's lists at the start.

use bgp::session::Time;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Daemon, Farewell, LISTING};
use crate::kernel;

/// The Selection_Deferral_Timer: neighbours who do not come by then are not waited for. Within the time for which the
/// kernel's side keeps routes.
const SELECTION_DEFERRAL: Time = Time::from_secs(120);
/// The same of a reflector, which does not know whether this is a restart or its first start.
const REFLECTOR_DEFERRAL: Time = Time::from_secs(30);

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
        self.deferral = Some(self.now() + most);
        self.rib.hold_back(true);
    }

    /// Whether all has been heard that is waited for.
    pub(super) fn deferral_over(&mut self) {
        let Some(until) = self.deferral else { return };
        let waited_for = |peer: &super::peers::Peer| {
            // Of one who keeps no routes over a restart there is no End-of-RIB to wait for (RFC 4724 4.1).
            peer.peering().enabled
                && match peer.session.negotiated() {
                    Some(negotiated) if negotiated.restart.is_some() => {
                        !negotiated.families().without(peer.session.told()).is_empty()
                    }
                    Some(_) => false,
                    None => peer.range.is_none(),
                }
        };
        let late = self.now() >= until;
        // A route whose next hop has not been found yet would be missing in the kernel for a moment.
        if !late && (self.rib.awaits_next_hops() || self.peers.iter().any(|(_, peer)| waited_for(peer))) {
            return;
        }
        if late {
            tracing::warn!("not all neighbours have told their routes since the restart: deciding without them");
        } else {
            tracing::info!("all neighbours have told their routes since the restart");
        }
        self.deferral = None;
        self.rib.hold_back(false);
        self.ready.extend(self.peers.keys());
        self.settle();
        self.fib.loaded();
    }
}
