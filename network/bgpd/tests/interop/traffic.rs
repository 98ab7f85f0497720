//! Packets between hosts behind speakers, all the time, and what the kernels' tables say of where they go.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use linux::netlink::{Monitor, Rtnl, Topic};
use meta::Prefix;

use crate::lab::{Host, eventually, v4};

/// Somebody behind a host, in the range that it originates: an address of its own.
fn behind(host: &Host) -> SocketAddr {
    let address: IpAddr = format!("10.{}.0.1", host.n).parse().unwrap();
    let mut rtnl: Rtnl = host.rtnl();
    let lo = rtnl.link("lo").unwrap().unwrap().index;
    rtnl.put_address(lo, Prefix::host(address)).unwrap();
    SocketAddr::new(address, 7)
}

/// Datagrams between two addresses behind hosts, there and back, all the time.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU32>,
    sent: Arc<AtomicU32>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// What happens to routes meanwhile.
    monitors: Vec<(u8, Monitor)>,
}

impl Traffic {
    pub fn between(one: &Host, two: &Host) -> Traffic {
        let (from, to) = (behind(one), behind(two));
        let echo = two.ns.run(|| UdpSocket::bind(to).unwrap()).unwrap();
        let asker = one.ns.run(|| UdpSocket::bind(from).unwrap()).unwrap();
        echo.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // What is late on a loaded machine is not lost.
        asker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (stop, lost, sent) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let (ended, missed, asked) = (stop.clone(), lost.clone(), sent.clone());
        let asking = std::thread::spawn(move || {
            let mut number = 0_u32;
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                let mut answer = [0; 4];
                let asked_one = asker.send_to(&number.to_be_bytes(), to);
                let came = asked_one.is_ok() && asker.recv(&mut answer).is_ok() && answer == number.to_be_bytes();
                if !came {
                    println!("number {number} did not come back: {asked_one:?}");
                }
                missed.fetch_add(u32::from(!came), Ordering::Relaxed);
                asked.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let ended = stop.clone();
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = echo.recv_from(&mut buffer)
                    && let Err(error) = echo.send_to(&buffer[..length], from)
                {
                    println!("no answer to {from}: {error}");
                }
            }
        });
        let monitor = |host: &Host| (host.n, Monitor::open_in(&host.ns, &[Topic::Routes, Topic::Links]).unwrap());
        let monitors = vec![monitor(one), monitor(two)];
        Traffic { stop, lost, sent, threads: vec![asking, answering], monitors }
    }

    /// How many of how many did not come back.
    pub fn end(mut self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        for (n, monitor) in &self.monitors {
            monitor.drain(|event| println!("host {n}: {event:?}")).unwrap();
        }
        (self.lost.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }
}

pub fn ways(host: &Host, dst: &str) -> Vec<IpAddr> {
    let dst: Prefix = dst.parse().unwrap();
    let routes = host.rtnl().routes_of(Some(254), |route| (route.dst == dst).then_some(route)).unwrap();
    routes.iter().filter_map(|route| route.gateway()).collect()
}

pub fn in_kernel(host: &Host, dst: &str, by: u8) {
    eventually(&format!("{dst} in the kernel of host {}", host.n), || {
        let ways = ways(host, dst);
        anyhow::ensure!(ways == [v4(by)], "{ways:?}");
        Ok(())
    });
}
