//! The cases, each named for what has to be so. `boot` comes last: it takes the longest.

mod boot;
mod cgroups;
mod firewalls;
mod host;
mod sessions;
mod tunnels;

use anyhow::Result;

use crate::guest::Guest;

pub type Case = (&'static str, fn(&Guest) -> Result<()>);

pub const ALL: &[Case] = &[
    ("a_privileged_pod_starts", cgroups::privileged),
    ("a_child_killed_for_memory_ends_its_container", cgroups::child_out_of_memory),
    ("classes_have_their_weights_and_no_swap", cgroups::classes),
    ("reset_leaves_the_groups_as_they_were", cgroups::reset),
    ("dns_policy_default_is_the_hosts_real_servers", host::real_servers),
    ("a_callers_umask_and_limits_stay_with_him", host::umask_and_limits),
    ("a_cluster_outlives_the_session_that_started_it", sessions::logout),
    ("a_cluster_outlives_a_hang_up", sessions::hang_up),
    ("a_unit_that_stops_gives_pods_their_grace", sessions::stop_of_a_unit),
    ("a_unit_that_restarts_leaves_pods_running", sessions::restart_of_a_unit),
    ("ufw_is_told_opened_and_closed_again", firewalls::ufw),
    ("firewalld_is_told_opened_and_closed_again", firewalls::firewalld),
    ("docker_is_told_opened_and_closed_again", firewalls::docker),
    ("a_firewall_that_closes_later_is_told", firewalls::later),
    ("nodes_reach_each_other_by_wireguard", tunnels::wireguard),
    ("nodes_of_two_families_reach_each_other_by_wireguard", tunnels::wireguard_of_two_families),
    ("nodes_reach_each_other_by_ipip", tunnels::ipip),
    ("a_machine_without_the_memory_controller_is_refused", boot::without_memory),
    ("pods_see_the_end_of_the_host_and_run_again_after_it", boot::reboot),
];
