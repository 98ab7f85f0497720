//! The chain of admission plugins: those of the table that are on, and the loops over them. I/O: measures how long each
//! plugin takes.

use std::sync::Arc;
use std::time::Instant;

use meta::Status;
use telemetry::{Family, Histogram};

use super::Parts;
use super::table::{Halves, Row};
use super::{Mutating, Operation, Reinvocation, Request, Validating, World};
use crate::config::Config;
use crate::error::Error;

/// One plugin's half in the chain.
struct Link<P: ?Sized> {
    name: &'static str,
    plugin: Arc<P>,
}

/// The plugins that are on, by what they do. See the picture at the head of [`admission`](super).
pub struct Chain {
    mutating: Vec<Link<dyn Mutating>>,
    allocating: Vec<Link<dyn Mutating>>,
    validating: Vec<Link<dyn Validating>>,
    /// By plugin, operation, whether it refused, and half.
    seconds: Family<Histogram, 4>,
}

/// Which time a stage is gone through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Again,
}

impl Chain {
    /// Makes the plugins of the rows that are on.
    pub fn new<'r>(
        rows: impl IntoIterator<Item = &'r Row>,
        parts: &Parts<'_>,
        seconds: Family<Histogram, 4>,
    ) -> Result<Chain, Error> {
        let mut chain = Chain { mutating: Vec::new(), allocating: Vec::new(), validating: Vec::new(), seconds };
        for row in rows.into_iter().filter(|row| is_on(row, parts.config)) {
            let name = row.name;
            let Halves { mutating, allocating, validating } = (row.make)(parts)?;
            chain.mutating.extend(mutating.map(|plugin| Link { name, plugin }));
            chain.allocating.extend(allocating.map(|plugin| Link { name, plugin }));
            chain.validating.extend(validating.map(|plugin| Link { name, plugin }));
        }
        Ok(chain)
    }

    /// The mutating half. As in upstream there is one second round at most: rules that never agree end there, and what
    /// they made of the object is judged.
    pub async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        if self.round(Round::First, &self.mutating, request, world).await? {
            self.round(Round::Again, &self.mutating, request, world).await?;
        }
        self.round(Round::First, &self.allocating, request, world).await.map(drop)
    }

    /// Whether something changed that plugins should be asked about again.
    async fn round(
        &self,
        round: Round,
        links: &[Link<dyn Mutating>],
        request: &mut Request<'_>,
        world: &dyn World,
    ) -> Result<bool, Status> {
        let mut surprised = false;
        for Link { name, plugin } in links {
            let wanted = round == Round::First || plugin.reinvocation() == Reinvocation::IfNeeded;
            if !wanted || !plugin.handles(request) {
                continue;
            }
            let before = plugin.surprises().then(|| request.object.clone());
            let started = Instant::now();
            let outcome = plugin.admit(request, world).await;
            self.measure(name, request.operation, "admit", started, &outcome);
            outcome?;
            surprised |= before.is_some_and(|before| before != *request.object);
        }
        Ok(surprised)
    }

    /// The validating half.
    pub async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        for Link { name, plugin } in &self.validating {
            if plugin.handles(request) {
                let started = Instant::now();
                let outcome = plugin.validate(request, world).await;
                self.measure(name, request.operation, "validate", started, &outcome);
                outcome?;
            }
        }
        Ok(())
    }

    fn measure(
        &self,
        name: &'static str,
        operation: Operation,
        half: &'static str,
        started: Instant,
        outcome: &Result<(), Status>,
    ) {
        let rejected = if outcome.is_err() { "true" } else { "false" };
        self.seconds.with([name, operation.word(), rejected, half]).time(started.elapsed());
    }
}

/// `--disable-admission-plugins` is stronger than what turns a plugin on.
fn is_on(row: &Row, config: &Config) -> bool {
    let named = |list: &[String]| list.iter().any(|name| name == row.name);
    (row.default_on || named(&config.enable_admission_plugins)) && !named(&config.disable_admission_plugins)
}

#[cfg(test)]
mod tests;
