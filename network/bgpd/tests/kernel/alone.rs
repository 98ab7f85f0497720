//! Who may write routes: one process for each table and protocol of a network namespace, and only with the right to.

use bgpd::kernel::{Config, Kernel, PROTOCOL, StartError};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tokio::sync::mpsc;

use crate::world::{World, by};

fn refusal(world: &World, config: Config) -> Option<StartError> {
    let (sender, _events) = mpsc::channel(16);
    world.ns.run(|| Kernel::start(config, sender).err()).unwrap()
}

/// It would take the first one's for those of an earlier process of its own, and remove them.
#[test]
fn a_second_writer_of_the_same_routes_is_refused() {
    let mut world = World::new();
    let first = world.start(Config::default());
    first.want("10.7.0.0/16", by(&["192.0.1.1"]));
    first.status("it is there", |status| status.there == 1);
    let refused = refusal(&world, Config::default()).expect("a refusal").to_string();
    assert!(refused.contains("another daemon writes protocol 71 into table 254"), "{refused}");
    assert!(refused.contains("kernel.protocol"), "{refused}");
    // Who writes others, or none, or elsewhere, is not in its way.
    for config in [
        Config { protocol: 72, ..Config::default() },
        Config { table: 1000, ..Config::default() },
        Config { write: false, ..Config::default() },
    ] {
        assert!(refusal(&world, config).is_none());
    }
    let elsewhere = World::new();
    assert!(refusal(&elsewhere, Config::default()).is_none());
    assert_eq!(world.count(254, PROTOCOL), 1);
    // The one that comes after it finds its routes.
    first.killed();
    let mut next = world.start(Config::default());
    next.listed();
    assert_eq!(next.kernel.status.borrow().kept, 1);
}

#[test]
fn without_the_right_to_change_routes_it_does_not_begin() {
    let world = World::new();
    let refused = std::thread::scope(|scope| {
        let unprivileged = scope.spawn(|| {
            world.ns.enter().unwrap();
            let mut mine = capabilities(None).unwrap();
            mine.effective.remove(CapabilitySet::NET_ADMIN);
            mine.permitted.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, mine).unwrap();
            let start = |write| {
                let (sender, _events) = mpsc::channel(16);
                Kernel::start(Config { write, ..Config::default() }, sender).map(drop)
            };
            (start(true), start(false))
        });
        unprivileged.join().unwrap()
    });
    let told = refused.0.expect_err("a refusal").to_string();
    assert!(told.contains("CAP_NET_ADMIN"), "{told}");
    refused.1.expect("who only looks needs no right");
}
