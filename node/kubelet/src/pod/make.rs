//! What the runtime is asked to make of a pod: sandbox and container configurations of the CRI. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use wire::cri;

use crate::config::Config;
use crate::names::{annotation, label};
use crate::pod::env::{self, Environment};
use crate::pod::expand::expand;
use crate::pod::hosts::Dns;
use crate::pod::pods::{self, ContainerType};
use crate::pod::resources;
use crate::pod::security;

/// `/<root>/kubepods/burstable/pod<uid>`: the cgroup that all containers of the pod are below.
pub fn cgroup_parent(pod: &Pod, config: &Config) -> String {
    let root = config.cgroup_root.trim_end_matches('/');
    if !config.cgroups_per_qos {
        return format!("{root}/");
    }
    let class = match resources::qos(pod) {
        "Burstable" => "/burstable",
        "BestEffort" => "/besteffort",
        _ => "",
    };
    format!("{root}/kubepods{class}/pod{}", pods::uid(pod))
}

pub fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    let mut labels: HashMap<String, String> = own.collect();
    labels.insert(label::POD_NAME.into(), pods::name(pod).into());
    labels.insert(label::POD_NAMESPACE.into(), pods::namespace(pod).into());
    labels.insert(label::POD_UID.into(), pods::uid(pod).into());
    labels
}

fn limits_of(limits: resources::Limits, quota: bool) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_shares: limits.cpu_shares,
        cpu_quota: limits.cpu_quota.filter(|_| quota).unwrap_or(0),
        cpu_period: limits.cpu_period,
        memory_limit_in_bytes: limits.memory.unwrap_or(0),
        ..cri::LinuxContainerResources::default()
    }
}

pub fn period(config: &Config) -> i64 {
    config.cpu_cfs_quota_period.as_micros() as i64
}

/// The sandbox of a pod; `Err` says what of the pod can't be made here.
pub fn sandbox(pod: &Pod, attempt: u32, dns: Dns, config: &Config) -> Result<cri::PodSandboxConfig, String> {
    let spec = pods::spec(pod);
    if spec.host_users == Some(false) {
        return Err("user namespaces (hostUsers: false) are not supported by this kubelet".into());
    }
    let (name, namespace, uid) = (pods::name(pod), pods::namespace(pod), pods::uid(pod));
    let hostname = if pods::host_network(pod) {
        String::new()
    } else {
        crate::pod::hosts::kernel_hostname(pod, &config.cluster_domain)?
    };
    let sysctls = spec.security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    let sysctls = sysctls.into_iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect();
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: cgroup_parent(pod, config),
        security_context: Some(security::sandbox(pod, &node(config))),
        sysctls,
        overhead: None,
        resources: Some(limits_of(resources::pod_limits(pod, period(config)), config.cpu_cfs_quota)),
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: namespace.into(),
            attempt,
        }),
        hostname,
        log_directory: config.pod_log_dir(namespace, name, uid).to_string_lossy().into_owned(),
        dns_config: Some(cri::DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options }),
        port_mappings: ports(pod),
        labels: pod_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux),
    })
}

pub fn node(config: &Config) -> security::Node {
    security::Node {
        seccomp_default: config.seccomp_default,
        seccomp_root: format!("{}/seccomp/", config.root_dir.display()),
    }
}

fn ports(pod: &Pod) -> Vec<cri::PortMapping> {
    let regular = |(container_type, _): &(ContainerType, Container)| {
        matches!(container_type, ContainerType::Sidecar | ContainerType::Regular)
    };
    let containers = pods::containers(pod);
    let all = containers.iter().filter(|c| regular(c)).flat_map(|(_, c)| c.ports.iter().flatten());
    all.map(|p| cri::PortMapping {
        protocol: match p.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        } as i32,
        container_port: p.container_port,
        host_port: p.host_port.unwrap_or(0),
        host_ip: p.host_ip.clone().unwrap_or_default(),
    })
    .collect()
}

/// What has been found out about a container before it is made.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    pub environment: Environment,
    pub mounts: Vec<cri::Mount>,
    pub image: String,
    pub image_user: security::ImageUser,
    /// The container whose processes an ephemeral one sees.
    pub target: Option<String>,
    pub node_memory: u64,
    /// Files of the container's group of version 2.
    pub unified: HashMap<String, String>,
    /// The kernel refuses scores below that of the kubelet itself.
    pub lowest_oom_score: i64,
}

pub fn container(
    pod: &Pod,
    container_type: ContainerType,
    spec: &Container,
    restarts: u32,
    prepared: Prepared,
    config: &Config,
) -> Result<cri::ContainerConfig, String> {
    security::check_non_root(pod, spec, &prepared.image_user)?;
    let known = |name: &str| prepared.environment.get(name);
    let mut room = env::MOST_BYTES;
    let mut words = |list: &Option<Vec<String>>| {
        let word = |text: &String| {
            let word = expand(text, room, known).map_err(|_| env::too_long())?;
            room -= word.len();
            Ok::<_, String>(word)
        };
        list.iter().flatten().map(word).collect::<Result<Vec<_>, _>>()
    };
    let (command, args) = (words(&spec.command)?, words(&spec.args)?);
    let limits = resources::container_limits(pod, spec, period(config));
    let score = resources::oom_score_adj(pod, spec, prepared.node_memory);
    let linux = cri::LinuxContainerResources {
        oom_score_adj: score.max(prepared.lowest_oom_score),
        unified: prepared.unified,
        ..limits_of(limits, config.cpu_cfs_quota)
    };
    let context =
        security::container(pod, container_type, spec, &prepared.image_user, prepared.target.clone(), &node(config));
    let envs = prepared.environment.vars().iter();
    let envs = envs.map(|(k, v)| cri::KeyValue { key: k.clone(), value: v.clone().into_bytes().into() }).collect();
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name.clone(), attempt: restarts }),
        image: Some(cri::ImageSpec {
            image: prepared.image,
            user_specified_image: spec.image.clone().unwrap_or_default(),
            ..cri::ImageSpec::default()
        }),
        command,
        args,
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        envs,
        mounts: prepared.mounts,
        devices: Vec::new(),
        labels: container_labels(pod, spec),
        annotations: annotations(pod, spec, restarts, &config.run),
        log_path: format!("{}/{restarts}.log", spec.name),
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig { resources: Some(linux), security_context: Some(context) }),
        stop_signal: stop_signal(spec) as i32,
        ..cri::ContainerConfig::default()
    })
}

fn container_labels(pod: &Pod, spec: &Container) -> HashMap<String, String> {
    HashMap::from([
        (label::POD_NAME.to_owned(), pods::name(pod).to_owned()),
        (label::POD_NAMESPACE.to_owned(), pods::namespace(pod).to_owned()),
        (label::POD_UID.to_owned(), pods::uid(pod).to_owned()),
        (label::CONTAINER_NAME.to_owned(), spec.name.clone()),
    ])
}

fn annotations(pod: &Pod, spec: &Container, restarts: u32, run: &str) -> HashMap<String, String> {
    let mut out = BTreeMap::new();
    out.insert(annotation::HASH, hash(spec));
    out.insert(annotation::RESTART_COUNT, restarts.to_string());
    out.insert(annotation::RUN, run.to_owned());
    out.insert(annotation::TERMINATION_PATH, spec.termination_message_path.clone().unwrap_or_default());
    out.insert(annotation::TERMINATION_POLICY, spec.termination_message_policy.clone().unwrap_or_default());
    if security::must_not_run_as_root(pod, spec) {
        out.insert(wire::RUN_AS_NON_ROOT, "true".to_owned());
    }
    if pods::is_critical(pod) {
        out.insert(annotation::CRITICAL, "true".to_owned());
    }
    if let Some(grace) = pods::spec(pod).termination_grace_period_seconds {
        out.insert(annotation::POD_GRACE, grace.to_string());
    }
    out.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn stop_signal(spec: &Container) -> cri::Signal {
    let wanted = spec.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref()).unwrap_or("");
    cri::Signal::from_str_name(&format!("SIGNAL_{}", wanted.replace('+', "PLUS").replace('-', "MINUS")))
        .unwrap_or(cri::Signal::RuntimeDefault)
}

/// Where the runtime writes the log of an instance.
pub fn log_file(config: &Config, pod: &Pod, container: &str, restarts: u32) -> std::path::PathBuf {
    let dir = config.pod_log_dir(pods::namespace(pod), pods::name(pod), pods::uid(pod));
    dir.join(container).join(format!("{restarts}.log"))
}

/// A bind mount without propagation.
pub fn bind(host: &Path, container: &str, readonly: bool) -> cri::Mount {
    cri::Mount {
        container_path: container.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        readonly,
        ..cri::Mount::default()
    }
}

/// Identifies what a container is made from: a change restarts it. Upstream's hash covers name and image, too.
pub fn hash(container: &Container) -> String {
    use sha2::{Digest, Sha256};
    let mut sum = Sha256::new();
    sum.update(container.name.as_bytes());
    sum.update([0]);
    sum.update(container.image.as_deref().unwrap_or("").as_bytes());
    sum.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect()
}
