//! Routes that outlive a session (RFC 4724, 8538, 9494), as the speaker sees it whose neighbour restarts: whose routes are
//! kept stale, until when, and what ends that. Pure. Called by [`super::neighbour`].
//!
//! ```text
//!  session lost ──keep──► stale ──restart time──► long-lived stale ──stale time──► gone
//!                           │ back, family forwarded                  │ back
//!                           └──► waiting for End-of-RIB ──End-of-RIB, or time──► what is still stale goes
//! ```

use super::Time;
use super::config::Restart;
use super::negotiated::Negotiated;
use super::reason::Reason;
use crate::family::{Families, Family};

/// What becomes of stale routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They go.
    Swept(Family),
    /// They stay, as the last resort (RFC 9494).
    LongLived(Family),
}

/// A family's stale routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stale {
    family: Family,
    /// When their fate is due.
    until: Time,
    /// How long they stay beyond, as long-lived ones.
    long_lived: Option<Time>,
    /// When long-lived ones go: set when they become it, and not put off before all has been told again.
    ends: Option<Time>,
}

/// What is kept of a neighbour.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    stale: Vec<Stale>,
}

impl Kept {
    /// Families that are kept over the end of a session: none unless both sides can, and no end that was meant for good.
    pub fn families(negotiated: &Negotiated, reason: &Reason) -> Families {
        let kept = match reason {
            Reason::ConnectionLost | Reason::ConnectionFailed | Reason::Replaced => true,
            Reason::Sent(notification) | Reason::Received(notification) => {
                negotiated.restart_on_notification && !notification.is_hard_reset()
            }
        };
        if kept { negotiated.restartable() } else { Families::NONE }
    }

    /// The session has gone, and these families' routes are kept. What was stale already goes first (RFC 4724 4.2), but for
    /// long-lived routes, which have the time that was left to them (RFC 9494 4.2); then the restart time, once more.
    pub fn lost(&mut self, negotiated: &Negotiated, kept: Families, now: Time) -> Vec<Fate> {
        let time = Time::from_secs(negotiated.restart.as_ref().map_or(0, |restart| restart.time).into());
        let before = std::mem::take(&mut self.stale);
        let mut gone = Vec::new();
        self.stale = kept
            .iter()
            .map(|family| {
                let (until, long_lived) = (now + time, negotiated.stale_time(family));
                let old = before.iter().find(|stale| stale.family == family);
                match old.map(|stale| stale.ends.filter(|ends| *ends > now && long_lived.is_some())) {
                    Some(Some(ends)) => {
                        let left = Some(ends.saturating_sub(until)).filter(|left| !left.is_zero());
                        Stale { family, until, long_lived: left, ends: Some(ends) }
                    }
                    old => {
                        gone.extend(old.map(|_| Fate::Swept(family)));
                        Stale { family, until, long_lived, ends: None }
                    }
                }
            })
            .collect();
        gone
    }

    /// The session is back: routes wait for End-of-RIB where forwarding went on, and go where it didn't.
    pub fn back(&mut self, negotiated: &Negotiated, restart: Option<&Restart>, now: Time) -> Vec<Fate> {
        let [went_on, long] =
            [negotiated.forwarding(), negotiated.forwarding_long()].map(|all| all.and(negotiated.families()));
        // For long-lived routes the bit of that capability counts (RFC 9494 4.2).
        let went_on = |stale: &Stale| if stale.ends.is_some() { long } else { went_on }.has(stale.family);
        let wait = restart.map_or(Time::ZERO, |restart| restart.stale_paths);
        let (kept, gone): (Vec<Stale>, Vec<Stale>) =
            self.stale.drain(..).partition(|stale| went_on(stale) && !wait.is_zero());
        self.stale = kept.into_iter().map(|stale| Stale { until: now + wait, long_lived: None, ..stale }).collect();
        gone.into_iter().map(|stale| Fate::Swept(stale.family)).collect()
    }

    /// All routes of a family have been told again.
    pub fn told(&mut self, family: Family) -> Option<Fate> {
        let before = self.stale.len();
        self.stale.retain(|stale| stale.family != family);
        (self.stale.len() < before).then_some(Fate::Swept(family))
    }

    /// Everything kept goes: the neighbour was stopped or told so.
    pub fn forget(&mut self) -> Vec<Fate> {
        self.stale.drain(..).map(|stale| Fate::Swept(stale.family)).collect()
    }

    /// Whether he is waited for: his routes are used as if he were there, for he may be back at any moment. Not for those of
    /// the last resort (RFC 9494).
    pub fn is_waiting(&self) -> bool {
        self.stale.iter().any(|stale| stale.ends.is_none())
    }

    /// When the next fate is due.
    pub fn due(&self) -> Option<Time> {
        self.stale.iter().map(|stale| stale.until).min()
    }

    /// What is due.
    pub fn expired(&mut self, now: Time) -> Vec<Fate> {
        let mut fates = Vec::new();
        self.stale.retain_mut(|stale| {
            if stale.until > now {
                return true;
            }
            match stale.long_lived.take() {
                Some(time) => {
                    stale.until = now + time;
                    stale.ends = Some(stale.until);
                    fates.push(Fate::LongLived(stale.family));
                    true
                }
                None => {
                    fates.push(Fate::Swept(stale.family));
                    false
                }
            }
        });
        fates
    }
}
