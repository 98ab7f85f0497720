//! What a machine that joins learns of its cluster: whom to believe, and what is equal on all of its hosts. The first
//! answer comes over a connection that proves nothing; it is believed when the token has signed it and the CA in it is
//! the one that the token names, and asked for again over TLS by that CA. I/O: asks the API server, within bounds.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use controller_manager::controllers::bootstrap::jws;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::AuthInfo;
use meta::Ranges;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::published::{MANAGED_BY, NETWORK, OURS, SUBNETS};
use super::token::{Words, pin};
use crate::config::{ClusterOptions, Foreign, Network, SubnetManager};
use crate::fault::Fault;
use crate::yaml;

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const KUBELET: &str = "/api/v1/namespaces/kube-system/configmaps/kubelet-config";
const KUBEADM: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
const FLANNEL: &str = "/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg";
/// The key of kubeadm's configuration in its map.
const CONFIGURATION: &str = "ClusterConfiguration";
/// No ConfigMap is larger.
const LONGEST: usize = 3 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// What a resolver asks, and what upstream's kubelet takes of a longer list.
const MOST_DNS: usize = 3;

/// What was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// The cluster's CA, PEM.
    pub ca: String,
    pub name: Option<String>,
    pub cluster_domain: String,
    pub cluster_dns: Vec<IpAddr>,
    pub pods: Option<Ranges>,
    pub services: Option<Ranges>,
    /// What connects pods, of the cluster's options.
    pub network: ClusterOptions,
    /// What is another way in it, where its control plane isn't ours.
    pub foreign: Option<Foreign>,
}

/// Asks the server that is told of.
pub async fn discover(server: &http::Uri, words: &Words) -> Result<Discovered> {
    let mut config = config(server);
    config.accept_invalid_certs = true;
    let stranger = get(&client(config)?, server, CLUSTER_INFO).await?;
    let ca = believe(&stranger, words).map_err(Fault::failed)?;
    let believed = client(by_ca(server, &ca)?)?;
    let again = believe(&get(&believed, server, CLUSTER_INFO).await?, words).map_err(Fault::failed)?;
    if again != ca {
        return Err(Fault::failed(format!("{server} shows another CA than a moment ago: try again")).into());
    }
    let client = with_token(server, &ca, words)?;
    let kubelet = get(&client, server, KUBELET).await?;
    let kubeadm = get(&client, server, KUBEADM).await?;
    let flannel = find(&client, server, FLANNEL).await?;
    learn(ca, &kubelet, &kubeadm, flannel.as_ref()).map_err(|said| Fault::failed(said).into())
}

/// A client that comes with the token.
pub fn with_token(server: &http::Uri, ca: &str, words: &Words) -> Result<kube::Client> {
    let mut config = by_ca(server, ca)?;
    config.auth_info = AuthInfo { token: Some(words.bearer().into()), ..AuthInfo::default() };
    client(config)
}

fn config(server: &http::Uri) -> kube::Config {
    let mut config = kube::Config::new(server.clone());
    (config.connect_timeout, config.read_timeout, config.write_timeout) =
        (Some(PATIENCE), Some(PATIENCE), Some(PATIENCE));
    config
}

fn by_ca(server: &http::Uri, ca: &str) -> Result<kube::Config> {
    let certificates = CertificateDer::pem_slice_iter(ca.as_bytes()).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| anyhow!("the cluster's CA: {error}"))?;
    let mut config = config(server);
    config.root_cert = Some(certificates.into_iter().map(|der| der.to_vec()).collect());
    Ok(config)
}

fn client(config: kube::Config) -> Result<kube::Client> {
    Ok(kube::Client::try_from(config)?)
}

async fn get(client: &kube::Client, server: &http::Uri, path: &str) -> Result<ConfigMap> {
    let (status, body) = ask(client, server, path).await?;
    match status.as_u16() {
        200 => serde_json::from_slice(&body).with_context(|| format!("{server}{path} is no ConfigMap")),
        401 => Err(Fault::failed(format!(
            "{server} does not know the token: it was revoked or is over; `ferrokube token create` makes another, in a \
             cluster of kubeadm's `kubeadm token create`"
        ))
        .into()),
        403 | 404 => Err(Fault::failed(format!(
            "{server} shows no {path} ({status}): machines can join once `ferrokube token create` was run there; in a \
             cluster of kubeadm's its phases upload-config and bootstrap-token show it"
        ))
        .into()),
        _ => Err(Fault::failed(format!("{server}{path}: {status}")).into()),
    }
}

/// None where there is none, or none that a machine which joins may see.
async fn find(client: &kube::Client, server: &http::Uri, path: &str) -> Result<Option<ConfigMap>> {
    let (status, body) = ask(client, server, path).await?;
    match status.as_u16() {
        200 => Ok(Some(serde_json::from_slice(&body).with_context(|| format!("{server}{path} is no ConfigMap"))?)),
        403 | 404 => Ok(None),
        _ => Err(Fault::failed(format!("{server}{path}: {status}")).into()),
    }
}

async fn ask(client: &kube::Client, server: &http::Uri, path: &str) -> Result<(http::StatusCode, Bytes)> {
    let request = http::Request::get(path).body(kube::client::Body::empty())?;
    let asked = async {
        let answer = client.send(request).await.map_err(|error| anyhow!("{error}"))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| anyhow!("{error}"))?;
        anyhow::Ok((status, body.to_bytes()))
    };
    let asked =
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(anyhow!("no answer in {PATIENCE:?}")));
    asked.with_context(|| format!("{server} can't be asked"))
}

/// The CA in what somebody has shown, if whoever has the token has signed it and the token names that CA.
fn believe(shown: &ConfigMap, words: &Words) -> Result<String, String> {
    let field = |name: &str| shown.data.as_ref().and_then(|data| data.get(name));
    let kubeconfig = field("kubeconfig").ok_or("cluster-info holds no kubeconfig")?;
    let signature = field(&format!("jws-kubeconfig-{}", words.id)).ok_or_else(|| {
        format!("cluster-info is not signed by the token {}: it was revoked or is over; make another there", words.id)
    })?;
    let right = jws::detached(kubeconfig, &words.id, &words.secret);
    if aws_lc_rs::constant_time::verify_slices_are_equal(signature.as_bytes(), right.as_bytes()).is_err() {
        return Err(
            "cluster-info is not signed by this token: its secret is mistyped, or somebody stands between".into()
        );
    }
    let kubeconfig = yaml::parse(kubeconfig).map_err(|said| format!("cluster-info's kubeconfig: {said}"))?;
    let encoded = &kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"];
    let ca = encoded.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let ca = ca.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or("cluster-info's kubeconfig names no CA")?;
    let found = pin(ca.as_bytes()).map_err(|said| format!("cluster-info's CA: {said:#}"))?;
    match &words.pin {
        Some(pin) if *pin != found => {
            Err(format!("the cluster's CA is {found}, the token names {pin}: it is another cluster's"))
        }
        _ => Ok(ca),
    }
}

/// Whether the control plane is ours: nobody else says so, or shows a map of flannel to machines that join.
fn is_ours(kubeadm: &ConfigMap, flannel: Option<&ConfigMap>) -> bool {
    let label = kubeadm.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    flannel.is_some() || label.is_some_and(|by| by == OURS)
}

/// What connects the pods of the cluster: what it says by name, and by the map that it shows of flannel, if it has any. One of
/// ours that is of a version that said no name has flannel if it shows that.
fn network(ours: bool, told: Option<&str>, flannel: Option<&ConfigMap>) -> Result<ClusterOptions, String> {
    let network = match told {
        Some(name) => Network::named(name)?,
        None if flannel.is_some() => Network::Flannel,
        None if ours => Network::Bridge,
        None => Network::Cni,
    };
    let mut options = ClusterOptions { network: Some(network), ..ClusterOptions::default() };
    let Some(map) = flannel.filter(|_| network == Network::Flannel) else { return Ok(options) };
    if let Some(text) = map.data.as_ref().and_then(|data| data.get(SUBNETS)) {
        let told = yaml::parse(text).map_err(|said| format!("{SUBNETS}: {said}"))?;
        let endpoints = told["endpoints"].as_array().into_iter().flatten();
        options.flannel_subnet_manager = (told["type"] == "etcd").then_some(SubnetManager::Etcd);
        options.flannel_etcd_endpoints = Some(endpoints.filter_map(|url| url.as_str().map(str::to_owned)).collect());
        options.flannel_etcd_prefix = told["prefix"].as_str().map(str::to_owned);
    }
    Ok(options)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The ranges of pods and of Services in kubeadm's configuration. Where one of the two has a second family that the other
/// lacks, as kubeadm allows, nodes have the first alone.
fn networking(kubeadm: &Value) -> Result<(Option<Ranges>, Option<Ranges>), String> {
    let networking = &kubeadm["networking"];
    let pods = text(&networking["podSubnet"]).map(|ranges| crate::config::pods(&ranges)).transpose();
    let pods = pods.map_err(|said| format!("podSubnet: {said}"))?;
    let services = text(&networking["serviceSubnet"]).map(|ranges| crate::config::services(&ranges)).transpose();
    let services = services.map_err(|said| format!("serviceSubnet: {said}"))?;
    let both = pods.zip(services).is_none_or(|(pods, services)| pods.is_like(&services));
    let known = |ranges: Option<Ranges>| ranges.map(|ranges| if both { ranges } else { ranges.primary().into() });
    Ok((known(pods), known(services)))
}

/// The same of the map that it is in; none where it does not say both.
pub fn ranges(kubeadm: &ConfigMap) -> Result<Option<(Ranges, Ranges)>, String> {
    let told = kubeadm.data.as_ref().and_then(|data| data.get(CONFIGURATION));
    let Some(told) = told else { return Ok(None) };
    let (pods, services) = networking(&yaml::parse(told).map_err(|said| format!("{CONFIGURATION}: {said}"))?)?;
    Ok(pods.zip(services))
}

/// Whom pods ask for names, and whether kubelets ask for the certificates that they serve with.
pub fn of_kubelets(kubelet: &Value) -> (Vec<IpAddr>, bool) {
    let told = kubelet["clusterDNS"].as_array().into_iter().flatten();
    let cluster_dns = told.filter_map(|ip| ip.as_str()?.parse().ok()).take(MOST_DNS).collect();
    (cluster_dns, kubelet["serverTLSBootstrap"] == true)
}

fn learn(
    ca: String,
    kubelet: &ConfigMap,
    kubeadm: &ConfigMap,
    flannel: Option<&ConfigMap>,
) -> Result<Discovered, String> {
    let ours = is_ours(kubeadm, flannel);
    let told = kubeadm.data.as_ref().filter(|_| ours).and_then(|data| data.get(NETWORK)).map(String::as_str);
    let network = network(ours, told, flannel)?;
    let read = |map: &ConfigMap, key: &str| {
        let text = map.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| format!("there is no {key}"))?;
        yaml::parse(text).map_err(|said| format!("{key}: {said}"))
    };
    let (kubelet, kubeadm) = (read(kubelet, "kubelet")?, read(kubeadm, CONFIGURATION)?);
    let (pods, services) = networking(&kubeadm)?;
    let (cluster_dns, serving) = of_kubelets(&kubelet);
    Ok(Discovered {
        foreign: (!ours).then(|| Foreign::new(cluster_dns.clone(), serving)),
        ca,
        name: text(&kubeadm["clusterName"]),
        cluster_domain: text(&kubelet["clusterDomain"]).unwrap_or_else(|| "cluster.local".into()),
        cluster_dns,
        pods,
        services,
        network,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["kubernetes".to_owned()]).expect("parameters");
        params.self_signed(&key).expect("a certificate").pem()
    }

    fn map(fields: &[(&str, &str)]) -> ConfigMap {
        let data = fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    fn shown(ca: &str, words: &Words) -> ConfigMap {
        let encoded = BASE64_STANDARD.encode(ca);
        let kubeconfig = format!("clusters: [{{name: '', cluster: {{certificate-authority-data: {encoded}}}}}]");
        let signature = jws::detached(&kubeconfig, &words.id, &words.secret);
        map(&[("kubeconfig", &kubeconfig), (&format!("jws-kubeconfig-{}", words.id), &signature)])
    }

    #[test]
    fn only_what_the_token_has_signed_and_names_is_believed() {
        let (ours, theirs) = (ca(), ca());
        let text = super::super::token::words("abcdef", "0123456789abcdef", ours.as_bytes()).expect("words");
        let words = Words::parse(&text).expect("words");
        assert_eq!(believe(&shown(&ours, &words), &words), Ok(ours.clone()));
        let refused = |map: &ConfigMap| believe(map, &words).expect_err("refused");
        assert!(
            refused(&shown(&theirs, &words)).contains("another cluster's"),
            "who has a token can't pass for the cluster"
        );
        let stranger = Words { secret: "0123456789abcdeg".into(), ..words.clone() };
        assert!(refused(&shown(&ours, &stranger)).contains("not signed by this token"));
        let other = Words { id: "abcdeg".into(), ..words.clone() };
        assert!(refused(&shown(&ours, &other)).contains("revoked"));
        let mut changed = shown(&ours, &words);
        changed.data.as_mut().expect("data").get_mut("kubeconfig").expect("one").push(' ');
        assert!(refused(&changed).contains("not signed by this token"));
        assert!(refused(&map(&[])).contains("no kubeconfig"));
    }

    #[test]
    fn what_is_equal_on_all_hosts_is_learned_from_kubeadms_maps() {
        let kubelet = "clusterDNS:\n- 10.43.0.10\nclusterDomain: cluster.example\n";
        let kubeadm =
            "clusterName: lab\nnetworking:\n  podSubnet: 10.42.0.0/16,fd00::/56\n  serviceSubnet: 10.43.0.0/16\n";
        let kubeadm = map(&[("ClusterConfiguration", kubeadm)]);
        let learned = learn("PEM".into(), &map(&[("kubelet", kubelet)]), &kubeadm, None);
        let learned = learned.expect("learned");
        assert_eq!((learned.name.as_deref(), learned.cluster_domain.as_str()), (Some("lab"), "cluster.example"));
        assert_eq!(learned.cluster_dns, [IpAddr::from([10, 43, 0, 10])]);
        assert_eq!(learned.pods.map(|p| p.to_string()).as_deref(), Some("10.42.0.0/16"));
        assert_eq!(learned.services.map(|p| p.to_string()).as_deref(), Some("10.43.0.0/16"), "a family that both have");
    }

    #[test]
    fn what_a_cluster_of_two_families_shows_is_learned() {
        let mut cluster = crate::config::tests::host("/nowhere".as_ref()).cluster;
        cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        cluster.service_cidr = "10.43.0.0/16,fd43::/112".parse().expect("ranges");
        let [kubelet, kubeadm] = super::super::published::shown(&cluster);
        let learned = learn("PEM".into(), &kubelet, &kubeadm, None).expect("learned");
        assert_eq!((learned.pods, learned.services), (Some(cluster.pod_cidr), Some(cluster.service_cidr)));
        assert_eq!(learned.foreign, None, "it is one of ours");
        assert_eq!(ranges(&kubeadm), Ok(Some((cluster.pod_cidr, cluster.service_cidr))));
        assert_eq!(ranges(&map(&[])), Ok(None));
        assert!(
            ranges(&map(&[(CONFIGURATION, "networking: {podSubnet: x}")]))
                .is_err_and(|said| said.contains("podSubnet"))
        );
        assert!(kubeadm.data.is_some_and(|data| data["ClusterConfiguration"].contains("\"10.42.0.0/16,fd42::/56\"")));
        let kubelet = kubelet.data.expect("data")["kubelet"].clone();
        assert!(kubelet.contains("fd43::a") && kubelet.contains("\"serverTLSBootstrap\": true"), "{kubelet}");
    }

    /// As `kubeadm init` makes it, with a DNS cache on each node.
    #[test]
    fn a_control_plane_that_is_not_ours_is_told_by_what_it_does_not_show() {
        let kubelet = "clusterDNS: [169.254.20.10]\nclusterDomain: cluster.local\nserverTLSBootstrap: true\n";
        let kubeadm = "networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}\n";
        let (kubelet, mut kubeadm) = (map(&[("kubelet", kubelet)]), map(&[("ClusterConfiguration", kubeadm)]));
        let learned = |kubeadm: &ConfigMap, flannel| learn("PEM".into(), &kubelet, kubeadm, flannel).expect("learned");
        let theirs = learned(&kubeadm, None);
        let foreign = theirs.foreign.expect("another's");
        assert_eq!((theirs.network.network, foreign.serving_certificates), (Some(Network::Cni), true));
        assert_eq!(foreign.cluster_dns, [IpAddr::from([169, 254, 20, 10])]);
        assert_eq!(foreign.left, ["kube-proxy", "kube-dns"], "until it was asked what its nodes may");
        let flannel = map(&[("net-conf.json", "{}")]);
        assert!(learned(&kubeadm, Some(&flannel)).foreign.is_none());
        kubeadm.metadata.labels = Some([(MANAGED_BY.to_owned(), OURS.to_owned())].into());
        let ours = learned(&kubeadm, None);
        assert_eq!((ours.network.network, ours.foreign), (Some(Network::Bridge), None));
    }

    #[test]
    fn the_pod_network_is_learned_from_upstreams_map_of_flannel() {
        fn network(told: Option<&str>, map: Option<&ConfigMap>) -> Result<ClusterOptions, String> {
            super::network(true, told, map)
        }
        assert_eq!(network(None, None).expect("learned").network, Some(Network::Bridge), "an older cluster");
        let theirs = super::network(false, None, None).expect("learned");
        assert_eq!(theirs.network, Some(Network::Cni), "kubeadm's: its add-on");
        let shown = map(&[("net-conf.json", "{}")]);
        let plain = network(None, Some(&shown)).expect("learned");
        assert_eq!(network(Some("flannel"), Some(&shown)), Ok(plain.clone()));
        // Its manifests may install upstream's flannel.
        assert_eq!(network(Some("cni"), Some(&shown)).expect("learned").network, Some(Network::Cni));
        let said = network(Some("weave"), None).expect_err("unknown");
        assert_eq!(
            said,
            "the cluster's pod network is \"weave\", which this version does not know: flannel, bridge, cni"
        );
        assert_eq!((plain.network, plain.flannel_subnet_manager), (Some(Network::Flannel), None));
        let told = r#"{"type": "etcd", "endpoints": ["http://192.0.2.1:2379"], "prefix": "/here"}"#;
        let etcd = network(None, Some(&map(&[(SUBNETS, told)]))).expect("learned");
        assert_eq!(etcd.flannel_subnet_manager, Some(SubnetManager::Etcd));
        assert_eq!(etcd.flannel_etcd_endpoints.expect("endpoints"), ["http://192.0.2.1:2379"]);
        assert_eq!(etcd.flannel_etcd_prefix.as_deref(), Some("/here"));
    }
}
