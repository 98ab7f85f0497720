//! Routes a second into the kernel, in a network namespace of its own, and what `ip -batch` makes of the same ones beside
//! it. Needs root. `cargo run --release -p bgpd --example kernel_routes -- 1000000`

use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bgpd::kernel::{Command, Config, Kernel, METRIC, Wish};
use linux::netlink::{NewVeth, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use tokio::sync::mpsc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Prefixes of a command.
const BATCH: usize = 2048;

fn host() -> Result<(NetNs, NetNs)> {
    let (here, there) = (NetNs::create()?, NetNs::create()?);
    let mut rtnl = Rtnl::open_in(&here)?;
    let peer_ns = Some(there.as_fd());
    let (name, peer_name) = ("eth0", "eth0");
    rtnl.add_veth(&NewVeth { name, mac: None, master: None, mtu: 1500, peer_name, peer_mac: None, peer_ns })?;
    for (ns, last) in [(&here, 1), (&there, 2)] {
        let mut rtnl = Rtnl::open_in(ns)?;
        let index = rtnl.link("eth0")?.ok_or("no eth0")?.index;
        rtnl.set_up(index, true)?;
        rtnl.put_address(index, format!("192.0.2.{last}/24").parse()?)?;
    }
    Ok((here, there))
}

fn by(hosts: &[u8]) -> Option<Arc<Wish>> {
    Some(Arc::new(Wish::by(METRIC, hosts.iter().map(|host| [192, 0, 2, *host].into()))))
}

fn main() -> Result<()> {
    let number: usize = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let (here, _there) = host()?;
    let routes: Vec<Prefix> = "16.0.0.0/4".parse::<Prefix>()?.subnets(28).take(number).collect();
    let (told, mut news) = mpsc::channel(1024);
    let kernel = here.run(|| Kernel::start(Config::default(), told))??;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut status = kernel.status.clone();
    let rate = |what: &str, began: Instant| {
        let seconds = began.elapsed().as_secs_f64();
        println!("{what:<12} {number} routes in {seconds:.2} s, {:.0} a second", number as f64 / seconds);
    };
    runtime.block_on(async {
        tokio::spawn(async move { while news.recv().await.is_some() {} });
        let steps = [("add", by(&[2])), ("change", by(&[2, 3])), ("remove", None)];
        for (at, (what, wish)) in steps.into_iter().enumerate() {
            let began = Instant::now();
            for some in routes.chunks(BATCH) {
                kernel.commands.send(Command::Want(some.iter().map(|p| (*p, wish.clone())).collect())).await?;
            }
            // Changes are made in the order of the commands: when one more route is there, all are done.
            let last = Prefix::new([10, 0, 0, at as u8], 32);
            kernel.commands.send(Command::Want(vec![(last, by(&[2]))])).await?;
            let there = at + 1 + if wish.is_some() { number } else { 0 };
            status.wait_for(|status| status.there == there).await?;
            rate(what, began);
        }
        kernel.end().await;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    let began = Instant::now();
    let mut ip = here.run(|| Program::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn())??;
    let mut input = std::io::BufWriter::new(ip.stdin.take().ok_or("no input")?);
    for prefix in &routes {
        writeln!(input, "route add {prefix} via 192.0.2.2")?;
    }
    drop(input);
    ip.wait()?;
    rate("ip -batch", began);
    Ok(())
}
