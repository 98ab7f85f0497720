//! Flags of a component on top of what the cluster sets (`--kubelet-arg name=value` and its siblings): read by the
//! parsers of the component alone, so that there is one set of flags. What the cluster must decide itself is refused
//! with what to say instead. Called when a cluster is started, first of all by [`check_arguments`].

use std::ffi::OsString;

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Parser};

use super::{Ignored, command, warn};
use crate::config::{ClusterOptions, Host, list};
use crate::fault::Fault;

/// Flags that are the cluster's to decide, with what to say instead.
pub type Own = &'static [(&'static str, &'static str)];

/// What was given besides, read.
pub struct Extra<F> {
    pub flags: F,
    flag: &'static str,
    matches: ArgMatches,
}

impl<F: Parser> Extra<F> {
    /// Reads the arguments of `flag`; `None` when there are none.
    pub fn read(flag: &'static str, args: &[String], own: Own, ignored: &[&Ignored]) -> Result<Option<Self>, Fault> {
        if args.is_empty() {
            return Ok(None);
        }
        let command = command::<F>(ignored, &[]);
        let mut line = line(flag, &command, args, own)?;
        let told = |long: &str| args.iter().any(|arg| name(arg) == long);
        let required = command.get_arguments().filter(|arg| arg.is_required_set()).filter_map(clap::Arg::get_long);
        // The cluster knows these.
        line.extend(required.filter(|long| !told(long)).map(|long| format!("--{long}={CLUSTERS}").into()));
        let component = command.get_name().to_owned();
        let matches = command.try_get_matches_from(line).map_err(|error| refused(flag, &error))?;
        let flags = F::from_arg_matches(&matches).map_err(|error| refused(flag, &error))?;
        let ignored: Vec<_> = ignored.iter().flat_map(|list| list.given(&matches)).collect();
        warn(&component, &ignored);
        Ok(Some(Extra { flags, flag, matches }))
    }

    /// Whether a flag was given, by the name of its field.
    pub fn given(&self, field: &str) -> bool {
        self.matches.value_source(field) == Some(ValueSource::CommandLine)
            && self.matches.get_raw(field).is_none_or(|mut values| values.any(|value| value != CLUSTERS))
    }

    /// Refuses what was given and is in none of these lists.
    pub fn only(&self, fields: &[&[&str]], ignored: &[&Ignored]) -> Result<(), Fault> {
        let known = |id: &str| {
            fields.iter().any(|list| list.contains(&id))
                || ignored.iter().any(|list| list.values.contains(&id) || list.switches.contains(&id))
        };
        let flags = F::command();
        let args = flags.get_arguments().map(|arg| arg.get_id().as_str());
        match args.filter(|id| self.given(id)).find(|id| !known(id)) {
            None => Ok(()),
            Some(id) => Err(Fault::usage(format!(
                "{} {}: it can be set for the component alone, not for the cluster's",
                self.flag,
                id.replace('_', "-")
            ))),
        }
    }
}

/// Stands where the cluster's own value will be.
const CLUSTERS: &str = "the-clusters";

/// The command line of a component that was given these.
pub fn line(flag: &str, command: &Command, args: &[String], own: Own) -> Result<Vec<OsString>, Fault> {
    for arg in args {
        if name(arg) == "help" {
            let sentence = format!("{flag} {arg}: see `ferrokube {} --help`", command.get_name());
            return Err(Fault::usage(sentence));
        }
        if let Some((_, instead)) = own.iter().find(|(own, _)| *own == name(arg)) {
            return Err(Fault::usage(format!("{flag} {arg}: the cluster decides it: {instead}")));
        }
    }
    let dashed = |arg: &String| if arg.starts_with('-') { arg.clone() } else { format!("--{arg}") };
    let program = command.get_name().to_owned();
    Ok(std::iter::once(program).chain(args.iter().map(dashed)).map(OsString::from).collect())
}

/// The flag's name in `--name=value` or `name=value`.
fn name(arg: &str) -> &str {
    arg.trim_start_matches('-').split('=').next().unwrap_or_default()
}

/// What clap says, in one sentence.
pub fn refused(flag: &str, error: &clap::Error) -> Fault {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let near = lines.filter_map(|line| line.strip_prefix("tip: a similar argument exists: ")).next();
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Fault::usage(format!("{flag}: {first}{near}"))
}

/// Sets fields of a configuration from flags of the same name that were given.
macro_rules! same {
    ($list:ident, $set:ident: $flags:ty => $config:ty { $($field:ident),* $(,)? }) => {
        const $list: &[&str] = &[$(stringify!($field)),*];

        fn $set(extra: &Extra<$flags>, config: &mut $config) {
            $(if extra.given(stringify!($field)) { config.$field = extra.flags.$field.clone(); })*
        }
    };
}
pub(super) use same;

/// Fails in one sentence when a component could not take what is given besides: asked before anything is started.
pub fn check_arguments(host: &Host) -> Result<()> {
    let ClusterOptions { kube_apiserver_arg, kube_controller_manager_arg, kube_scheduler_arg, etcd_arg, .. } =
        &host.cluster.options;
    super::apiserver::over(&mut apiserver::Config::default(), list(kube_apiserver_arg))?;
    let mut controllers = controller_manager::Config::default();
    super::controller_manager::over(&mut controllers, list(kube_controller_manager_arg))?;
    super::scheduler::over(&mut scheduler::Config::default(), list(kube_scheduler_arg))?;
    super::etcd::over(&mut etcd::daemon::Config::default(), list(etcd_arg))?;
    super::proxy::over(&mut proxy::Config::default(), list(&host.options.kube_proxy_arg))?;
    super::flannel::given(list(&host.options.flannel_arg))?;
    let mut node = kubelet::config::Config::new(&host.node_name);
    super::kubelet::taints(&mut node, list(&host.options.node_taint))?;
    super::kubelet::over(&mut node, list(&host.options.kubelet_arg))?;
    let gates: Vec<_> = host.cluster.options.feature_gates.iter().flat_map(|gates| gates.0.keys().cloned()).collect();
    warn("--feature-gates", &gates);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::host;

    fn says(set: impl FnOnce(&mut Host)) -> String {
        let mut host = host(std::path::Path::new("/nowhere"));
        set(&mut host);
        check_arguments(&host).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn args(all: &[&str]) -> Option<Vec<String>> {
        Some(all.iter().map(|arg| (*arg).to_owned()).collect())
    }

    #[test]
    fn a_flag_that_a_component_knows_works_and_an_unknown_one_is_refused_by_name() {
        let good = |o: &mut Host| {
            o.cluster.options.kube_apiserver_arg =
                args(&["event-ttl=2h", "--max-requests-inflight=7", "v=2", "audit-log-path=/a"]);
            o.cluster.options.kube_controller_manager_arg =
                args(&["terminated-pod-gc-threshold=5", "leader-elect=false"]);
            o.cluster.options.kube_scheduler_arg = args(&["secure-port=0"]);
            o.options.kubelet_arg = args(&["max-pods=20", "seccomp-default"]);
            o.options.kube_proxy_arg = args(&["masquerade-all"]);
            o.cluster.options.etcd_arg = args(&["quota-backend-bytes=1000000000"]);
            o.options.node_taint = args(&["dedicated=web:NoSchedule"]);
        };
        assert_eq!(says(good), "");
        let unknown = says(|o| o.cluster.options.kube_apiserver_arg = args(&["event-tll=2h"]));
        assert!(unknown.starts_with("--kube-apiserver-arg: unexpected argument '--event-tll' found"), "{unknown}");
        assert!(unknown.contains("did you mean '--event-ttl'?"), "{unknown}");
        assert!(
            says(|o| o.options.kubelet_arg = args(&["max-pod=1"])).starts_with("--kubelet-arg: unexpected argument")
        );
        let wrong = says(|o| o.cluster.options.kube_scheduler_arg = args(&["secure-port=many"]));
        assert!(wrong.starts_with("--kube-scheduler-arg: invalid value 'many'"), "{wrong}");
        assert!(says(|o| o.options.kubelet_arg = args(&["max-pods=many"])).starts_with("--kubelet-arg --max-pods: "));
        assert!(says(|o| o.options.node_taint = args(&["web"])).starts_with("--node-taint: \"web\" is not a taint"));
    }

    #[test]
    fn what_the_cluster_decides_is_refused_with_what_to_say_instead() {
        let port = says(|o| o.cluster.options.kube_apiserver_arg = args(&["secure-port=7443"]));
        assert_eq!(port, "--kube-apiserver-arg secure-port=7443: the cluster decides it: say --api-port");
        assert!(says(|o| o.options.kubelet_arg = args(&["--kubeconfig=/x"])).contains("the cluster decides it"));
        let subnets = says(|o| o.options.flannel_arg = args(&["kube-subnet-mgr"]));
        assert!(subnets.ends_with("say --flannel-subnet-manager"), "{subnets}");
        assert_eq!(says(|o| o.options.flannel_arg = args(&["iface=eth1", "healthz-port=8471"])), "");
        assert!(says(|o| o.cluster.options.etcd_arg = args(&["data-dir=/x"])).contains("--data-dir of the cluster"));
        // Etcd listened on every address, without TLS and for everybody.
        let open = says(|o| {
            o.cluster.options.etcd_arg = args(&["listen-client-urls=https://127.0.0.1:1,http://0.0.0.0:2379"])
        });
        assert!(open.contains("http://0.0.0.0:2379") && open.contains("say https://"), "{open}");
        assert_eq!(says(|o| o.cluster.options.etcd_arg = args(&["listen-client-urls=https://0.0.0.0:2379"])), "");
        assert_eq!(
            says(|o| o.cluster.options.etcd_arg = args(&["listen-metrics-urls=http://127.0.0.1:2381"])),
            "",
            "no keys in it"
        );
        assert!(says(|o| o.options.kube_proxy_arg = args(&["help"])).contains("`ferrokube kube-proxy --help`"));
    }

    #[test]
    fn only_what_was_given_changes() {
        let mut config = apiserver::Config { max_requests_inflight: 9, ..apiserver::Config::default() };
        config.service_account_issuer = "https://mine".into();
        crate::component::apiserver::over(&mut config, &args(&["event-ttl=2h"]).expect("args")).expect("taken");
        assert_eq!((config.event_ttl.as_secs(), config.max_requests_inflight), (7200, 9));
        assert_eq!(config.service_account_issuer, "https://mine", "a required flag that was not given");
    }
}
