//! Names inside a pod: its host name, its /etc/hosts and its resolv.conf. Pure: files of the host are given as text.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::pod::pods;

/// Linux takes no longer host name.
const HOSTNAME_MAX: usize = 63;
/// Upstream's bounds on what a resolv.conf may hold.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Host name and domain of a pod.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pods::spec(pod);
    let wanted = spec.hostname.as_deref().filter(|h| !h.is_empty());
    let mut host = wanted.unwrap_or(pods::name(pod)).to_owned();
    if host.len() > HOSTNAME_MAX {
        host.truncate(HOSTNAME_MAX);
        host.truncate(host.trim_end_matches(['-', '.']).len());
    }
    if let Some(name) = spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", pods::namespace(pod)),
        None => String::new(),
    };
    (host, domain)
}

/// The host name as the kernel gets it: with the domain if the pod asks for that.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (host, domain) = hostname(pod, cluster_domain);
    if !pods::spec(pod).set_hostname_as_fqdn.unwrap_or(false) || domain.is_empty() {
        return Ok(host);
    }
    let full = format!("{host}.{domain}");
    if full.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long \
             (64 characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// The managed /etc/hosts of a pod with its own network.
pub fn hosts_file(ips: &[String], host: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() {
            text.push_str(&format!("{ip}\t{host}\n"));
        } else {
            text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
        }
    }
    text + &alias_lines(aliases)
}

/// The managed /etc/hosts of a pod on the host's network: the host's own and the aliases.
pub fn host_network_file(host_file: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host_file}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let line = |a: &HostAlias| format!("{}\t{}\n", a.ip, a.hostnames.as_deref().unwrap_or(&[]).join("\t"));
    let lines: String = aliases.iter().map(line).collect();
    format!("\n# Entries added by HostAliases.\n{lines}")
}

/// Reads a resolv.conf; a later `search` line replaces an earlier one.
pub fn parse_resolv(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or("");
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                let clean = |w: &str| if w == "." { w.to_owned() } else { w.trim_end_matches('.').to_owned() };
                dns.searches = words.map(clean).collect();
            }
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

/// The host's settings as pods can use them: where it names systemd-resolved's stub, which a pod can't reach, those
/// that resolved has itself. kubeadm and k3s choose its file, too.
pub fn host_dns(resolv_conf: &str, resolved: &str) -> Dns {
    let stub = |server: &String| server.parse().is_ok_and(|address| linux::resolved::is_stub(&address));
    let named = parse_resolv(resolv_conf);
    if !named.servers.iter().any(stub) {
        return named;
    }
    let real = parse_resolv(resolved);
    if real.servers.iter().all(stub) { named } else { real }
}

/// The DNS settings of a pod, and what users should be told when something had to be left out.
pub fn dns(pod: &Pod, host: &Dns, cluster_dns: &[IpAddr], cluster_domain: &str) -> (Dns, Vec<String>) {
    let spec = pods::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut notes = Vec::new();
    let cluster = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !pods::host_network(pod));
    let mut out = match policy {
        "None" => Dns::default(),
        _ if cluster && cluster_dns.is_empty() => {
            notes.push(format!(
                "pod: \"{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"{policy}\" \
                 policy. Falling back to \"Default\" policy.",
                pods::shown(pod)
            ));
            host.clone()
        }
        _ if cluster => {
            let ns = pods::namespace(pod);
            let own =
                [format!("{ns}.svc.{cluster_domain}"), format!("svc.{cluster_domain}"), cluster_domain.to_owned()];
            let mut searches: Vec<String> = own.into();
            searches.extend(host.searches.iter().cloned());
            let servers = cluster_dns.iter().map(IpAddr::to_string).collect();
            Dns { servers, searches, options: vec!["ndots:5".into()] }
        }
        _ => host.clone(),
    };
    if let Some(own) = &spec.dns_config {
        out.servers.extend(own.nameservers.iter().flatten().cloned());
        out.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let text = match option.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            // It would be a line of its own.
            if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                notes.push(format!("The DNS option {text:?} holds white space: it was omitted"));
                continue;
            }
            out.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            out.options.push(text);
        }
    }
    bound(&mut out, &mut notes);
    (out, notes)
}

fn bound(dns: &mut Dns, notes: &mut Vec<String>) {
    let unique = |list: &mut Vec<String>| {
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|item| seen.insert(item.clone()));
    };
    unique(&mut dns.servers);
    unique(&mut dns.searches);
    if dns.servers.len() > MAX_NAMESERVERS {
        dns.servers.truncate(MAX_NAMESERVERS);
        notes.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            dns.servers.join(" ")
        ));
    }
    let mut length = 0;
    let fits = |s: &String| {
        length += s.len() + 1;
        length <= MAX_SEARCH_CHARS + 1
    };
    let keep = dns.searches.iter().take(MAX_SEARCHES).take_while({
        let mut fits = fits;
        move |s| fits(s)
    });
    let keep = keep.count();
    if keep < dns.searches.len() {
        dns.searches.truncate(keep);
        notes.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            dns.searches.join(" ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names_of_a_pod_behind_a_headless_service() {
        let p = pod(
            json!({"containers": [], "subdomain": "db", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}),
        );
        let (host, domain) = hostname(&p, "cluster.local");
        let aliases = p.spec.as_ref().unwrap().host_aliases.clone().unwrap();
        let text = hosts_file(&["10.0.0.7".into()], &host, &domain, &aliases);
        assert!(text.contains("10.0.0.7\tweb-0.db.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn dns_follows_policy_and_own_settings() {
        let host = parse_resolv("# x\nnameserver 9.9.9.9\nsearch corp. example.org\noptions edns0\n");
        let cluster: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap()];
        let get = |spec| dns(&pod(spec), &host, &cluster, "cluster.local").0;
        let first = get(json!({"containers": []}));
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(
            first.searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp", "example.org"]
        );
        assert_eq!(first.options, ["ndots:5"]);
        assert_eq!(get(json!({"containers": [], "dnsPolicy": "Default"})), host);
        assert_eq!(get(json!({"containers": [], "hostNetwork": true})), host);
        let own = get(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}]}}));
        assert_eq!((own.servers[0].as_str(), own.options[0].as_str()), ("1.1.1.1", "ndots:2"));
        let sly = get(json!({"containers": [], "dnsConfig": {"options": [{"name": "x\nnameserver 9.9.9.9"}]}}));
        assert_eq!(sly.options, ["ndots:5"], "no line of a resolver's file comes from an option");
    }

    #[test]
    fn a_pod_is_not_sent_to_the_stub_of_its_host() {
        let (stub, real) = ("nameserver 127.0.0.53\noptions edns0 trust-ad\n", "nameserver 192.0.2.1\nsearch lan\n");
        let dns = host_dns(stub, real);
        assert_eq!((dns.servers, dns.searches), (vec!["192.0.2.1".to_owned()], vec!["lan".to_owned()]));
        // No file of resolved, or one that names the stub again: what the host says.
        assert_eq!(host_dns(stub, "").servers, ["127.0.0.53"]);
        assert_eq!(host_dns(stub, stub).servers, ["127.0.0.53"]);
        assert_eq!(host_dns("nameserver 192.0.2.9\n", real).servers, ["192.0.2.9"], "the host doesn't use it");
    }
}
