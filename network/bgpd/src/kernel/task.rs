//! The loop: commands and news in, batches of changes out. Does I/O by netlink, which blocks: it has a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use linux::netlink::{Error, Event as Change, Item, Monitor, Route, RouteChange, Rtnl};
use meta::Prefix;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::news::News;
use super::plan;
use super::plan::{Found, Plan, Step, Surroundings};
use super::said::{Command, Config, Event, Status};
use super::ways::{Shapes, Ways};
use super::wish::{Shape, Wish};

/// Changes in one system call. More gains nothing that can be measured, and meanwhile nobody else is heard.
const BATCH: usize = 1000;
/// A list that news asks for waits so long, for those that ask for the same.
const SOON: Duration = Duration::from_millis(500);

/// See the module's head.
pub struct Task {
    config: Config,
    rtnl: Rtnl,
    port: u32,
    plan: Plan,
    ways: Ways,
    shapes: Shapes,
    news: News,
    told: watch::Sender<Status>,
    refusal: Option<String>,
    /// When everything is listed next.
    scan: Instant,
    /// When routes of an earlier process go.
    keep: Option<Instant>,
    /// Links, addresses or routes of others are not as they were when shapes were found.
    moved: bool,
}

/// What a batch is made with.
struct Around<'a> {
    ways: &'a Ways,
    shapes: &'a Shapes,
}

impl Surroundings for Around<'_> {
    fn shape(&self, wish: &Arc<Wish>) -> Option<Arc<Shape>> {
        self.shapes.get(wish)
    }

    fn is_taken(&self, prefix: &Prefix, metric: u32) -> bool {
        self.ways.is_taken(prefix, metric)
    }
}

impl Task {
    pub fn new(config: Config, rtnl: Rtnl, told: watch::Sender<Status>) -> Task {
        let ways = Ways::new(config.vrf.clone(), config.ways != config.table);
        let port = rtnl.port();
        let (plan, shapes, news) = (Plan::default(), Shapes::default(), News::default());
        let (scan, keep) = (Instant::now(), Some(Instant::now() + config.keep));
        Task { config, rtnl, port, plan, ways, shapes, news, told, refusal: None, scan, keep, moved: false }
    }

    /// Until nobody can say anything any more.
    pub async fn run(
        mut self,
        monitor: AsyncFd<Monitor>,
        mut commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) {
        self.scan(monitor.get_ref());
        // Whoever hears that all has been listed looks how it stands.
        self.tell();
        self.news.listed();
        let (kept, table) = (self.plan.counts()[2], self.config.table);
        if kept > 0 {
            info!(routes = kept, table, "routes of an earlier process stay until others are known");
        }
        loop {
            if self.plan.is_dirty() {
                self.write();
                self.hear(monitor.get_ref());
                while let Ok(command) = commands.try_recv() {
                    self.obey(command);
                    if self.plan.is_dirty() {
                        break;
                    }
                }
                while !self.news.is_empty()
                    && let Ok(permit) = events.try_reserve()
                {
                    send(&mut self.news, permit);
                }
                // Timers and the monitor have their turn between batches.
                tokio::task::yield_now().await;
                continue;
            }
            self.tell();
            let timer = self.keep.map_or(self.scan, |keep| keep.min(self.scan));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                ready = monitor.readable() => match ready {
                    Ok(mut ready) => {
                        ready.clear_ready();
                        self.hear(monitor.get_ref());
                    }
                    Err(error) => return warn!(%error, "the kernel's routes can't be watched"),
                },
                permit = events.reserve(), if !self.news.is_empty() => match permit {
                    Ok(permit) => send(&mut self.news, permit),
                    // Nobody listens: there is nothing to tell.
                    Err(_) => while self.news.take().is_some() {},
                },
                () = tokio::time::sleep_until(timer) => {
                    if self.keep.is_some_and(|keep| keep <= Instant::now()) {
                        self.loaded();
                    }
                    if self.scan <= Instant::now() {
                        self.scan(monitor.get_ref());
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            // Nothing is wanted of one who leaves the kernel's routes alone.
            Command::Want(_) if !self.config.write => {}
            Command::Want(wishes) => {
                for (prefix, wish) in wishes {
                    if let Some(wish) = &wish {
                        self.shapes.find(wish, &self.ways);
                    }
                    self.plan.want(prefix, wish);
                }
            }
            Command::Track(address) => self.news.track(address, &self.ways),
            Command::Forget(address) => self.news.forget(address),
            Command::Loaded => self.loaded(),
            Command::Clear => self.plan.clear(),
        }
    }

    fn loaded(&mut self) {
        if self.keep.take().is_some() {
            let (kept, table) = (self.plan.counts()[2], self.config.table);
            if kept > 0 {
                info!(routes = kept, table, "routes of an earlier process that nobody has told of again go");
            }
        }
        self.plan.loaded();
    }

    /// One batch of changes.
    fn write(&mut self) {
        let around = Around { ways: &self.ways, shapes: &self.shapes };
        let changes = self.plan.changes(BATCH, &around);
        let (table, protocol) = (self.config.table, self.config.protocol);
        let change = |change: &plan::Change| {
            let (dst, metric) = (change.prefix, change.metric);
            match &change.step {
                Step::Add(shape) => RouteChange::Add(shape.route(dst, metric, table, protocol)),
                Step::Replace(shape) => RouteChange::Put(shape.route(dst, metric, table, protocol)),
                Step::Delete => RouteChange::Delete { dst, table, metric, protocol },
            }
        };
        let requests: Vec<RouteChange> = changes.iter().map(change).collect();
        match self.rtnl.change_routes(&requests) {
            Ok(refused) => {
                if let Some((_, error)) = refused.first() {
                    warn!(table, refused = refused.len(), %error, "the kernel refuses routes");
                    self.refusal = Some(error.to_string());
                }
                for (at, error) in refused {
                    if let Some(change) = changes.get(at) {
                        self.plan.refused(change);
                    }
                    if error.is_exists() {
                        self.scan_soon();
                    }
                }
            }
            Err(error) => {
                warn!(table, %error, "routes can't be changed");
                self.refusal = Some(error.to_string());
                changes.iter().for_each(|change| self.plan.refused(change));
                self.scan_soon();
            }
        }
    }

    fn scan_soon(&mut self) {
        self.scan = self.scan.min(Instant::now() + SOON);
    }

    /// Lists everything.
    fn scan(&mut self, monitor: &Monitor) {
        // What was told before is in the list.
        self.hear(monitor);
        self.scan = Instant::now() + self.config.scan;
        if let Err(error) = self.list() {
            warn!(%error, "the kernel's routes can't be listed");
            self.scan_soon();
        }
    }

    fn list(&mut self) -> Result<(), Error> {
        let (table, ways) = (self.config.table, self.config.ways);
        let is_ours = |route: &Route| self.config.is_ours(route.protocol);
        let (links, addresses) = (self.rtnl.links()?, self.rtnl.addresses(None)?);
        self.ways.list(links, addresses);
        if ways != table {
            let others = self.rtnl.routes_of(Some(ways), |route| (!is_ours(&route)).then_some(route))?;
            self.ways.list_routes(false, others);
        }
        let (shapes, mut others) = (&mut self.shapes, Vec::new());
        let found = self.rtnl.routes_of(Some(table), |route| {
            if !is_ours(&route) {
                others.push(route);
                return None;
            }
            let shape = shapes.one_of(Shape::of(&route));
            Some(Found { prefix: route.dst, metric: route.metric, shape })
        })?;
        self.ways.list_routes(ways != table, others);
        self.plan.list(found);
        self.moved();
        if self.config.learn {
            self.news.look_at_all(&self.ways);
        }
        self.shapes.sweep();
        self.plan.sweep();
        Ok(())
    }

    /// Reads what has happened.
    fn hear(&mut self, monitor: &Monitor) {
        let mut all = Vec::new();
        if let Err(error) = monitor.drain_except(self.port, |change| all.push(change)) {
            warn!(%error, "news of the kernel's routes are missed");
            self.scan_soon();
        }
        all.into_iter().for_each(|change| self.heard(change));
        if std::mem::take(&mut self.moved) {
            self.moved();
        }
    }

    fn heard(&mut self, change: Change) {
        match change {
            Change::Set(Item::Link(link)) => {
                if self.ways.set_link(link) {
                    // Routes go with a link, and come back with it, in silence.
                    self.moved = true;
                    self.scan_soon();
                }
            }
            Change::Gone(Item::Link(link)) => {
                self.ways.remove_link(link.index);
                self.moved = true;
                self.scan_soon();
            }
            Change::Set(Item::Address(address)) => {
                self.ways.set_address(address);
                self.moved = true;
            }
            Change::Gone(Item::Address(address)) => {
                self.ways.remove_address(&address);
                self.moved = true;
            }
            Change::Set(Item::Route(route)) => self.heard_route(&route, false),
            Change::Gone(Item::Route(route)) => self.heard_route(&route, true),
            Change::Lost => self.scan_soon(),
            Change::Set(_) | Change::Gone(_) => {}
        }
    }

    fn heard_route(&mut self, route: &Route, gone: bool) {
        let Config { table, ways, .. } = self.config;
        let is_ours = self.config.is_ours(route.protocol);
        if is_ours && route.table == table {
            let (prefix, metric) = (route.dst, route.metric);
            // Of several next hops of IPv6 one goes with a message of its own: what is left is in the next list.
            if gone {
                self.plan.removed(prefix, metric);
            } else {
                let shape = self.shapes.one_of(Shape::of(route));
                self.plan.put(Found { prefix, metric, shape });
            }
            return;
        }
        if is_ours || (route.table != table && route.table != ways) {
            return;
        }
        if route.table == ways {
            self.moved = true;
        }
        if self.ways.route(route.table != ways, route, gone) {
            self.scan_soon();
        }
        if route.table == table {
            // It may have taken the place of one of ours. IPv6 may have both.
            if !gone && route.tos == 0 && self.plan.has(&route.dst, route.metric) {
                match route.dst.is_ipv6() {
                    true => self.scan_soon(),
                    false => self.plan.removed(route.dst, route.metric),
                }
            }
            self.plan.others_changed(route.dst);
            if self.config.learn {
                self.news.look_at(route.dst, &self.ways);
            }
        }
    }

    /// Finds out what has become of next hops.
    fn moved(&mut self) {
        let changed = self.shapes.find_again(&self.ways);
        if !changed.is_empty() {
            self.plan.reshape(&changed);
        }
        self.plan.retry();
        self.news.look(&self.ways);
    }

    fn tell(&mut self) {
        let [wanted, there, kept, refused] = self.plan.counts();
        if refused == 0 {
            self.refusal = None;
        }
        let status = Status { wanted, there, kept, refused, refusal: self.refusal.clone() };
        self.told.send_if_modified(|told| std::mem::replace(told, status.clone()) != status);
    }
}

fn send(news: &mut News, permit: mpsc::Permit<'_, Event>) {
    if let Some(event) = news.take() {
        permit.send(event);
    }
}
