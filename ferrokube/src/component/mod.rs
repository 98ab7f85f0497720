//! Each component alone, under its upstream name and with upstream's flag names: `ferrokube kube-scheduler
//! --kubeconfig …`, or by a link of that name. A flag that isn't done is refused. Only upstream's flags that tune what
//! is built differently here are taken for the sake of existing unit files, and a warning names each ([`Ignored`]). Which
//! there are is said by `components::COMPONENTS`; knows nothing of a cluster that runs together.

pub mod apiserver;
pub mod controller_manager;
pub mod dns;
mod election;
pub mod etcd;
mod extra;
pub mod flannel;
pub mod kubelet;
pub mod proxy;
mod refused;
pub mod runtime;
pub mod scheduler;
mod served;
mod settings;
mod switches;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use serving::tls::{Clients, Files};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::extra::check_arguments;
use self::refused::Refused;
use crate::threads;

/// Upstream's flags that change nothing here: limits of what is not limited, ways of what has one way.
struct Ignored {
    /// Those that take a value.
    values: &'static [&'static str],
    /// Those that stand alone, or are `--flag=true`.
    switches: &'static [&'static str],
}

/// Ignored by every component but etcd: logs are set by RUST_LOG, and there is one way to log.
const LOGGING: Ignored = Ignored {
    values: &[
        "v",
        "vmodule",
        "logging-format",
        "log-flush-frequency",
        "feature-gates",
        "show-hidden-metrics-for-version",
    ],
    switches: &["profiling", "contention-profiling"],
};

/// Parses a component's flags; a wrong one ends the process with clap's message and code 2.
fn parse<F: Parser>(args: &[OsString], ignored: &[&Ignored]) -> F {
    parse_refusing(args, ignored, &[])
}

/// The same for one that knows flags which can't be had.
fn parse_refusing<F: Parser>(args: &[OsString], ignored: &[&Ignored], refused: &[Refused]) -> F {
    let (flags, warnings) = exit_on(read_refusing(args, ignored, refused));
    warn(F::command().get_name(), &warnings);
    flags
}

fn exit_on<T>(parsed: Result<T, clap::Error>) -> T {
    parsed.unwrap_or_else(|error| error.exit())
}

/// Names what was given and has no effect.
fn warn(component: &str, without_effect: &[String]) {
    for name in without_effect {
        eprintln!("{component}: {name} has no effect here");
    }
}

/// The flags, and those that were given and are ignored.
fn read_refusing<F: Parser>(
    args: &[OsString],
    ignored: &[&Ignored],
    list: &[Refused],
) -> Result<(F, Vec<String>), clap::Error> {
    let mut command = command::<F>(ignored, list);
    let matches = command.try_get_matches_from_mut(args)?;
    refused::check(&mut command, &matches, list)?;
    let given = ignored.iter().flat_map(|list| list.given(&matches)).collect();
    Ok((F::from_arg_matches(&matches)?, given))
}

fn command<F: Parser>(ignored: &[&Ignored], refused: &[Refused]) -> clap::Command {
    refused::add(hidden(switches::as_in_go(F::command()), ignored), refused)
}

/// The names of all flags, those without effect and those that are refused among them.
fn names<F: Parser>(ignored: &[&Ignored], refused: &[Refused]) -> Vec<String> {
    let command = command::<F>(ignored, refused);
    let all = command.get_arguments().flat_map(|arg| arg.get_long_and_visible_aliases().unwrap_or_default());
    all.map(str::to_owned).collect()
}

/// Adds flags that are ignored.
fn hidden(mut command: clap::Command, ignored: &[&Ignored]) -> clap::Command {
    let hidden = |name: &'static str| clap::Arg::new(name).long(name).hide(true).action(clap::ArgAction::Append);
    for list in ignored {
        for name in list.values {
            let arg = if name.len() == 1 { hidden(name).short(name.chars().next()) } else { hidden(name) };
            command = command.arg(arg);
        }
        for name in list.switches {
            command = command.arg(hidden(name).num_args(0..=1).require_equals(true).default_missing_value("true"));
        }
    }
    command
}

impl Ignored {
    /// Which of them were given.
    fn given(&self, matches: &clap::ArgMatches) -> Vec<String> {
        let names = self.values.iter().chain(self.switches);
        names.filter(|name| matches.value_source(name).is_some()).map(|name| format!("--{name}")).collect()
    }
}

/// Go's durations, as upstream's flags take them: `90s`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    meta::duration::parse(text)
}

/// Where a component serves its pages of health and metrics.
#[derive(Debug, clap::Args)]
struct Serving {
    /// Address of the pages of health and metrics
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    bind_address: IpAddr,
    /// Port of the pages of health and metrics; 0 turns them off [default: upstream's]
    #[arg(long, value_name = "PORT")]
    secure_port: Option<u16>,
    /// Certificate of these pages [default: one that signs itself, in --cert-dir]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Key of --tls-cert-file
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Where a certificate is made when none is given
    #[arg(long, default_value = "/var/run/kubernetes", value_name = "DIR")]
    cert_dir: PathBuf,
    /// CA whose client certificates are identities
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
}

impl Serving {
    /// For the component of this name, whose port is upstream's unless another is asked for.
    fn config(self, component: &str, port: u16) -> Result<Option<client::pages::Config>> {
        let port = self.secure_port.unwrap_or(port);
        if port == 0 {
            return Ok(None);
        }
        let files = match self.tls_cert_file.zip(self.tls_private_key_file) {
            Some((cert, key)) => Files { cert, key },
            None => {
                let files = crate::pki::self_signed(&self.cert_dir, component, &[], &[IpAddr::from([127, 0, 0, 1])])?;
                Files { cert: files.cert, key: files.key }
            }
        };
        let clients = self.client_ca_file.map_or(Clients::Unasked, Clients::Of);
        Ok(Some(client::pages::Config { address: SocketAddr::new(self.bind_address, port), files, clients }))
    }
}

/// What of [`Serving`] is given, over what the cluster sets.
const SERVING: &[&str] =
    &["bind_address", "secure_port", "tls_cert_file", "tls_private_key_file", "cert_dir", "client_ca_file"];

impl Serving {
    fn over(&self, given: impl Fn(&str) -> bool, pages: &mut Option<client::pages::Config>) {
        let Some(config) = pages else { return };
        if given("bind_address") {
            config.address.set_ip(self.bind_address);
        }
        if let Some((cert, key)) = self.tls_cert_file.clone().zip(self.tls_private_key_file.clone()) {
            config.files = Files { cert, key };
        }
        if let Some(ca) = self.client_ca_file.clone() {
            config.clients = Clients::Of(ca);
        }
        match self.secure_port {
            Some(0) => *pages = None,
            Some(port) => config.address.set_port(port),
            None => {}
        }
    }
}

/// Reviews are asked for with the identity of --kubeconfig, and files of it are not needed twice.
const DELEGATED: Ignored = Ignored {
    values: &[
        "authentication-kubeconfig",
        "authorization-kubeconfig",
        "kube-api-burst",
        "kube-api-content-type",
        "kube-api-qps",
        "requestheader-allowed-names",
        "requestheader-client-ca-file",
        "requestheader-extra-headers-prefix",
        "requestheader-group-headers",
        "requestheader-uid-headers",
        "requestheader-username-headers",
    ],
    switches: &["authentication-skip-lookup", "authentication-tolerate-lookup-failure"],
};

/// Runs a component until a signal, with logs on standard error.
pub fn until_signal<F>(run: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    crate::logging::init();
    let runtime = threads::runtime(None)?;
    let result = threads::run(&runtime, async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        });
        run(shutdown).await
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Who this process is among the candidates of an election: the host and a random number, as upstream.
pub fn candidate() -> String {
    let host = crate::config::host_name();
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("{host}_{}", id.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(long)]
        kubeconfig: String,
    }

    fn given(line: &str) -> Result<(String, Vec<String>), clap::Error> {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        read_refusing::<Flags>(&args, &[&LOGGING], &[]).map(|(flags, names)| (flags.kubeconfig, names))
    }

    #[test]
    fn flags_without_effect_are_named_and_unknown_ones_refused() {
        let (file, names) = given("x --v=2 --kubeconfig f --profiling --logging-format json").expect("taken");
        assert_eq!(file, "f");
        assert_eq!(names, ["--v", "--logging-format", "--profiling"]);
        assert_eq!(given("x --kubeconfig f -v 4 --profiling=false").expect("taken").1, ["--v", "--profiling"]);
        assert!(given("x --kubeconfig f").expect("taken").1.is_empty());
        assert_eq!(given("x --kubeconfig f --audit-policy-file p").expect_err("refused").exit_code(), 2);
    }
}
