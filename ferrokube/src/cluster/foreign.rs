//! A node in a cluster whose control plane isn't ours: what of it is left to the cluster. There kube-proxy, DNS and the
//! network add-on are pods with accounts of their own; a node's identity, by which ours speak, has no right to what they
//! read. So the cluster is asked at each start what the node may, and what it may not is not run: a sentence says so,
//! instead of a component that is refused again and again. I/O: asks the API server.
//!
//! ```text
//!   the node may list and watch        a cluster of kubeadm's        after a person bound system:node-proxier to nodes
//!   services                           yes                           yes
//!   endpointslices                     no  ──► kube-proxy left       yes ──► kube-proxy here
//!   namespaces, configmaps/coredns     no  ──► kube-dns left         no  ──► kube-dns left
//! ```

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview as Review, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use crate::config::{Cluster, Network};

/// A start does not hang on an API server that is away: what was known last holds.
const PATIENCE: Duration = Duration::from_secs(5);
const SYSTEM: &str = "kube-system";
const SLICES: Right = Right { group: "discovery.k8s.io", resource: "endpointslices", object: None };

/// Something that is listed and watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Right {
    group: &'static str,
    resource: &'static str,
    /// In `kube-system`; none: all of them everywhere.
    object: Option<&'static str>,
}

const fn core(resource: &'static str) -> Right {
    Right { group: "", resource, object: None }
}

/// What each component that runs as pods there would read in the node's name, and can't do without. ServiceCIDRs are not among
/// it: before 1.33 there are none and no role names them, and kube-proxy does without.
const NEEDS: [(&str, &[Right]); 2] = [
    ("kube-proxy", &[core("services"), SLICES]),
    (
        "kube-dns",
        &[
            core("services"),
            SLICES,
            core("namespaces"),
            Right { group: "", resource: "configmaps", object: Some("coredns") },
        ],
    ),
];

/// Components that are left to the cluster, as it answers now.
pub async fn ask(node: kube::Client, cluster: &Cluster) -> Result<Vec<String>> {
    let reviews: Api<Review> = Api::all(node);
    let mut refused = Vec::new();
    let asked = async {
        for right in NEEDS.iter().flat_map(|(_, rights)| *rights) {
            for verb in ["list", "watch"] {
                let answer = reviews.create(&PostParams::default(), &review(right, verb)).await?;
                if !answer.status.is_some_and(|status| status.allowed) {
                    refused.push(*right);
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, asked).await??;
    Ok(left(cluster, &refused))
}

/// DNS of ours is at the tenth address of Services and nowhere else: kubeadm's has one of two families in the first alone.
fn left(cluster: &Cluster, refused: &[Right]) -> Vec<String> {
    let (asked, tenth) = (cluster.dns_ips(), cluster.tenth_of_services());
    let own_place = !asked.is_empty() && asked.iter().all(|ip| tenth.contains(ip));
    let may = |name: &str, rights: &[Right]| {
        rights.iter().all(|right| !refused.contains(right)) && (name != "kube-dns" || own_place)
    };
    NEEDS.iter().filter(|(name, rights)| !may(name, rights)).map(|(name, _)| (*name).to_owned()).collect()
}

fn review(right: &Right, verb: &str) -> Review {
    let attributes = ResourceAttributes {
        group: Some(right.group.into()),
        resource: Some(right.resource.into()),
        name: right.object.map(str::to_owned),
        namespace: right.object.map(|_| SYSTEM.to_owned()),
        verb: Some(verb.into()),
        ..ResourceAttributes::default()
    };
    Review {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Review::default()
    }
}

/// A sentence for each thing that a person may miss on this node.
pub fn told(cluster: &Cluster) -> Vec<String> {
    let mut told = Vec::new();
    let Some(foreign) = &cluster.foreign else { return told };
    if cluster.network() == Network::Cni {
        told.push(
            "the pod network is left to the cluster's add-on: its configuration is read from /etc/cni/net.d".to_owned(),
        );
    }
    if cluster.leaves("kube-proxy") {
        told.push(
            "kube-proxy is left to the cluster's own (kubeadm's is a DaemonSet): its nodes may not read EndpointSlices; \
             where there is none, `kubectl create clusterrolebinding ferrokube-node-proxier \
             --clusterrole=system:node-proxier --group=system:nodes` has this node run one from its next start"
                .to_owned(),
        );
    }
    if cluster.leaves("kube-dns") {
        let asked: Vec<_> = foreign.cluster_dns.iter().map(ToString::to_string).collect();
        told.push(format!("cluster DNS is left to the cluster's own: pods ask {}", asked.join(", ")));
    }
    if !foreign.serving_certificates {
        told.push(
            "the kubelet serves with a certificate that it has signed itself: serverTLSBootstrap is not set in \
             kube-system/kubelet-config; once it is, this node asks for one from its next start"
                .to_owned(),
        );
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Foreign;

    fn cluster(dns: &str) -> Cluster {
        let mut cluster = crate::config::tests::host("/nowhere".as_ref()).cluster;
        cluster.foreign = Some(Foreign::new(vec![dns.parse().expect("an address")], false));
        cluster.options.network = Some(Network::Cni);
        cluster
    }

    #[test]
    fn what_the_node_may_not_read_for_is_left_to_the_cluster() {
        let own = cluster("10.43.0.10");
        assert!(left(&own, &[]).is_empty());
        assert_eq!(left(&own, &[SLICES]), ["kube-proxy", "kube-dns"], "as kubeadm has it");
        assert_eq!(left(&own, &[core("namespaces")]), ["kube-dns"]);
        let ranges = Right { group: "networking.k8s.io", resource: "servicecidrs", object: None };
        assert!(left(&own, &[ranges]).is_empty(), "kube-proxy does without");
        assert_eq!(left(&cluster("169.254.20.10"), &[]), ["kube-dns"], "names are asked for elsewhere");
        let both = Cluster { service_cidr: "10.43.0.0/16,fd43::/112".parse().expect("ranges"), ..own };
        assert!(left(&both, &[]).is_empty());
    }

    #[test]
    fn what_is_left_is_not_started() {
        let mut host = crate::config::tests::host("/nowhere".as_ref());
        host.options.credentials = Some("/nowhere/pki".into());
        host.cluster = cluster("10.43.0.10");
        let started = |host: &crate::config::Host| {
            let runs = crate::components::COMPONENTS.iter().filter(|component| super::super::runs(host, component));
            runs.map(|component| component.name).collect::<Vec<_>>()
        };
        assert_eq!(started(&host), ["container-runtime", "kubelet"]);
        host.cluster.foreign.as_mut().expect("foreign").left = vec!["kube-dns".to_owned()];
        assert_eq!(started(&host), ["container-runtime", "kube-proxy", "kubelet"]);
    }

    #[test]
    fn each_thing_that_is_left_is_one_sentence() {
        let mut cluster = cluster("10.43.0.10");
        let all = told(&cluster);
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(all[1].contains("--clusterrole=system:node-proxier") && all[2].ends_with("pods ask 10.43.0.10"));
        let foreign = cluster.foreign.as_mut().expect("foreign");
        (foreign.left, foreign.serving_certificates) = (vec!["kube-dns".to_owned()], true);
        assert_eq!(told(&cluster).len(), 2);
        cluster.foreign = None;
        assert!(told(&cluster).is_empty(), "one of ours");
    }

    #[tokio::test]
    async fn an_api_server_says_what_the_node_may() {
        let (client, _server) = crate::api::tests::admin().await;
        assert!(ask(client, &cluster("10.43.0.10")).await.expect("asked").is_empty(), "this one allows all");
    }
}
