//! From what the kubelet asks for and what the image says to the specification of a container. Pure.
//!
//! The rules are those of the CRI and of containerd where the CRI is silent. Called by container creation and start.

mod mounts;
mod security;

pub use mounts::{PodFiles, VolumeImage};
pub use security::{capabilities, default_device_rules, refuse_unsupported, selinux_enabled};

use linux::cgroup::Limits;
use linux::container::spec::CgroupView;
use linux::container::{Namespaces, PidNamespace, Program, Rlimit, Rootfs, Spec, Text};
use wire::cri;

use crate::images::manifest::RunConfig;
use crate::images::passwd::Identity;

/// The search path of images that set none, as containerd gives it.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The kernel's number of the limit on open files.
const RLIMIT_NOFILE: u32 = 7;
/// Open files a container may have, if the host lets it: what containers have had for years.
const MAX_OPEN_FILES: u64 = 1 << 20;

/// The bad part of a request, in one sentence.
pub type Refusal = String;

/// What is known of the host when a specification is made.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Capabilities that this process may hand on.
    pub capabilities: u64,
    /// The hard limit on open files of this process.
    pub open_files: u64,
    /// Devices under /dev, for privileged containers.
    pub devices: Vec<linux::container::DeviceNode>,
}

/// All inputs of one container's specification.
#[derive(Debug)]
pub struct Input<'a> {
    pub config: &'a cri::ContainerConfig,
    pub sandbox: &'a cri::PodSandboxConfig,
    pub image: &'a RunConfig,
    pub identity: &'a Identity,
    pub host: &'a Host,
    pub rootfs: Rootfs,
    pub namespaces: Namespaces,
    pub cgroup: CgroupView,
    pub pod_files: &'a PodFiles,
    pub volume_images: &'a [VolumeImage],
    /// The compiled filter of the seccomp profile that applies.
    pub seccomp: Option<Vec<u64>>,
    /// Devices asked for, looked up on the host.
    pub devices: Vec<linux::container::DeviceNode>,
}

/// Puts the specification together.
pub fn spec(input: Input<'_>) -> Result<Spec, Refusal> {
    let security = security(input.config);
    let privileged = security.privileged;
    let program = program(&input, &security)?;
    let binds = mounts::binds(&input, &security)?;
    let has_shm = binds.iter().any(|b| b.target.trim_end_matches('/') == "/dev/shm");
    let mut devices = input.devices;
    if privileged {
        devices.extend(input.host.devices.iter().cloned());
    }
    let paths = |list: &[String]| if privileged { Vec::new() } else { list.to_vec() };
    Ok(Spec {
        program,
        rootfs: Rootfs { readonly: security.readonly_rootfs, ..input.rootfs },
        namespaces: input.namespaces,
        cgroup: CgroupView { writable: privileged, ..input.cgroup },
        binds,
        devices,
        shm: if has_shm { None } else { input.pod_files.shm.clone() },
        masked_paths: paths(&security.masked_paths),
        readonly_paths: paths(&security.readonly_paths),
        writable_sysfs: privileged,
    })
}

/// The container's security context, empty when there is none.
pub fn security(config: &cri::ContainerConfig) -> cri::LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
}

/// Refuses root where the kubelet says that the pod wants none: what counts is the ID that the container would run as,
/// not the text that it came from.
pub fn check_non_root(config: &cri::ContainerConfig, uid: u32) -> Result<(), Refusal> {
    let wanted = config.annotations.get(wire::RUN_AS_NON_ROOT).is_some_and(|value| value == "true");
    if wanted && uid == 0 {
        return Err(wire::RUNS_AS_ROOT.into());
    }
    Ok(())
}

/// Which of the pod's namespaces to join.
pub fn namespaces(
    security: &cri::LinuxContainerSecurityContext,
    pod_run_dir: &std::path::Path,
    target: Option<PidNamespace>,
) -> Namespaces {
    use cri::NamespaceMode as Mode;
    let options = security.namespace_options.clone().unwrap_or_default();
    let of = |mode: Mode, name: &str| (mode != Mode::Node).then(|| pod_run_dir.join(name));
    Namespaces {
        net: of(options.network(), "net"),
        ipc: of(options.ipc(), "ipc"),
        // The host name goes with the network: pods of the host's network have the host's name.
        uts: of(options.network(), "uts"),
        pid: match options.pid() {
            Mode::Pod => PidNamespace::At(pod_run_dir.join("pid")),
            Mode::Container => PidNamespace::New,
            Mode::Node => PidNamespace::Host,
            Mode::Target => target.unwrap_or(PidNamespace::New),
        },
    }
}

/// The command line: the kubelet's command replaces the image's entry point, its arguments the image's command.
pub fn command_line(config: &cri::ContainerConfig, image: &RunConfig) -> Result<Vec<String>, Refusal> {
    let (command, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (&image.entrypoint, &config.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let line = [command.as_slice(), args].concat();
    if line.is_empty() {
        Err("no command specified: neither the container nor its image has one".into())
    } else {
        Ok(line)
    }
}

fn program(input: &Input<'_>, security: &cri::LinuxContainerSecurityContext) -> Result<Program, Refusal> {
    let config = input.config;
    let args = command_line(config, input.image)?;
    let resources = config.linux.as_ref().and_then(|l| l.resources.as_ref());
    let cwd = [&config.working_dir, &input.image.working_dir].into_iter().find(|d| !d.is_empty());
    let cwd = cwd.map_or("/".to_owned(), |d| if d.starts_with('/') { d.clone() } else { format!("/{d}") });
    let open_files = input.host.open_files.min(MAX_OPEN_FILES);
    Ok(Program {
        args: args.iter().map(|a| Text::from(a.as_str())).collect(),
        env: environment(input)?,
        cwd,
        uid: input.identity.uid,
        gid: input.identity.gid,
        groups: input.identity.groups.clone(),
        terminal: config.tty,
        caps: capabilities(security, input.host.capabilities)?,
        no_new_privileges: security.no_new_privs,
        seccomp: input.seccomp.clone(),
        rlimits: vec![Rlimit { resource: RLIMIT_NOFILE, soft: open_files, hard: open_files }],
        oom_score_adj: resources.map(|r| r.oom_score_adj.clamp(-1000, 1000) as i32),
    })
}

/// The image's variables, overridden by the pod's, with those that every container has.
fn environment(input: &Input<'_>) -> Result<Vec<Text>, Refusal> {
    let mut env: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut set = |name: &[u8], value: &[u8]| match env.iter_mut().find(|(n, _)| n == name) {
        Some(old) => old.1 = value.to_vec(),
        None => env.push((name.to_vec(), value.to_vec())),
    };
    let (name, value) = DEFAULT_PATH.split_once('=').unwrap_or_default();
    set(name.as_bytes(), value.as_bytes());
    if !input.sandbox.hostname.is_empty() {
        set(b"HOSTNAME", input.sandbox.hostname.as_bytes());
    }
    if input.config.tty {
        set(b"TERM", b"xterm");
    }
    set(b"HOME", input.identity.home.as_bytes());
    for one in &input.image.env {
        if let Some((name, value)) = one.split_once('=') {
            set(name.as_bytes(), value.as_bytes());
        }
    }
    for one in &input.config.envs {
        if one.key.is_empty() || one.key.contains(['=', '\0']) || one.value.contains(&0) {
            return Err(format!("environment variable {:?}: empty, or with = or a zero byte", one.key));
        }
        set(one.key.as_bytes(), &one.value);
    }
    Ok(env.into_iter().map(|(name, value)| Text::from([name, b"=".to_vec(), value].concat())).collect())
}

/// Limits of a container's control group.
pub fn limits(resources: &cri::LinuxContainerResources) -> Limits {
    let positive = |v: i64| (v > 0).then_some(v);
    let text = |v: &String| (!v.is_empty()).then(|| v.clone());
    let memory = positive(resources.memory_limit_in_bytes);
    Limits {
        cpu_shares: positive(resources.cpu_shares).map(|v| v as u64),
        cpu_quota: (resources.cpu_quota != 0).then_some(resources.cpu_quota),
        cpu_period: positive(resources.cpu_period).map(|v| v as u64),
        memory,
        // Without a swap limit of its own, a memory limit holds for memory and swap together.
        memory_swap: if resources.memory_swap_limit_in_bytes != 0 {
            Some(resources.memory_swap_limit_in_bytes)
        } else {
            memory
        },
        pids: None,
        cpus: text(&resources.cpuset_cpus),
        mems: text(&resources.cpuset_mems),
        unified: resources.unified.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

/// The signal that asks a container to stop: the pod's wish, else the image's, else SIGTERM.
pub fn stop_signal(config: &cri::ContainerConfig, image: &RunConfig) -> i32 {
    const SIGTERM: i32 = 15;
    let wish = config.stop_signal();
    if wish != cri::Signal::RuntimeDefault {
        return signal_number(wish.as_str_name().trim_start_matches("SIGNAL_")).unwrap_or(SIGTERM);
    }
    signal_number(&image.stop_signal).unwrap_or(SIGTERM)
}

/// The number of a signal given as a number or as a name with or without SIG; real-time ones as RTMIN+3, RTMAX-2 (also
/// spelt RTMINPLUS3, RTMAXMINUS2).
fn signal_number(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase().replace("PLUS", "+").replace("MINUS", "-");
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let add = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        return Some(RTMIN + add).filter(|n| *n <= RTMAX);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let less = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse::<i32>().ok()? };
        return Some(RTMAX - less).filter(|n| *n >= RTMIN);
    }
    let plain = NAMES.iter().position(|known| *known == name).map(|at| at as i32 + 1);
    plain.or_else(|| ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number))
}

#[cfg(test)]
mod tests;
