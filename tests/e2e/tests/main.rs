//! End to end: one cluster of the real binary, driven by kubectl, Helm and etcdctl as a person would. The tests run in
//! this order on the same cluster; each file is a part of what a person does, each test leaves nothing behind.

mod authority;
mod bgp;
mod certificates;
mod commands;
mod components;
mod corrupt;
mod crash;
mod envtest;
mod flannel;
mod floods;
mod foreign;
mod guards;
mod hardened;
mod helm;
mod host;
mod images;
mod in_pod;
mod kubeconfig;
mod kubectl;
mod life;
mod many;
mod node_life;
mod nodes;
mod pods_of_hosts;
mod pools;
mod reset;
mod servers;
mod services;
mod settings;
mod trust;
mod two_families;
mod two_hosts;
mod upstream;
mod upstream_flannel;
mod volumes;
mod workload;
mod wrong;

use std::process::ExitCode;

use testkit::Cluster;
use testkit::runner::{Test, run};

/// Every test by name.
const TESTS: &[&[Test]] = &[
    life::BEFORE,
    life::TESTS,
    workload::TESTS,
    kubectl::apply::TESTS,
    kubectl::create::TESTS,
    kubectl::read::TESTS,
    kubectl::watch::TESTS,
    kubectl::change::TESTS,
    kubectl::delete::TESTS,
    kubectl::rollout::TESTS,
    kubectl::streams::TESTS,
    kubectl::forward::TESTS,
    kubectl::debug::TESTS,
    kubectl::access::TESTS,
    kubectl::certificates::TESTS,
    kubectl::nodes::TESTS,
    in_pod::TESTS,
    volumes::TESTS,
    many::TESTS,
    trust::TESTS,
    guards::TESTS,
    floods::TESTS,
    helm::TESTS,
    commands::TESTS,
    settings::TESTS,
    images::TESTS,
    wrong::TESTS,
    host::TESTS,
    services::TESTS,
    pools::TESTS,
    two_hosts::TESTS,
    servers::TESTS,
    node_life::TESTS,
    nodes::TESTS,
    pods_of_hosts::TESTS,
    two_families::TESTS,
    foreign::TESTS,
    flannel::TESTS,
    upstream_flannel::TESTS,
    upstream::TESTS,
    certificates::TESTS,
    kubeconfig::TESTS,
    reset::TESTS,
    crash::TESTS,
    hardened::TESTS,
    corrupt::TESTS,
    components::TESTS,
    bgp::TESTS,
    envtest::TESTS,
    life::AFTER,
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [what, address] = &args[..]
        && what == floods::ATTACKER
    {
        floods::attack(address);
        return ExitCode::SUCCESS;
    }
    if !is_root() {
        println!("end-to-end tests make namespaces and mounts: run them as root");
        return ExitCode::FAILURE;
    }
    // Another name lets two runs of these tests share a host.
    let name = std::env::var("FERROKUBE_TEST_CLUSTER").unwrap_or_else(|_| "e2e".to_owned());
    let cluster = match Cluster::new(&name) {
        Ok(cluster) => cluster,
        Err(error) => {
            println!("no directory for the test cluster: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    run(&cluster, &TESTS.concat())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
