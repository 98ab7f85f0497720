//! The command line: what can be typed, and which file of `commands` answers it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::commands;
use crate::component::duration;
use crate::components;
use crate::config::{Shape, Which};

/// The end of the help.
pub const MORE: &str = "\
Components, each alone under its upstream name and with upstream's flags (see `ferrokube etcd --help`), also by a \
link of that name: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, container-runtime, kubelet, \
kube-proxy, kube-dns, flannel. Links named bridge, flannel, host-local, loopback and portmap are CNI plugins; \
the component flannel is flanneld by a link.

Examples:
  ferrokube up --demo                        a cluster with a web app on it
  ferrokube up --nodes 3                     one of three nodes, all on this host
  docker save app | ferrokube image import -
  ferrokube up --name second --data-dir ~/second
  ferrokube reset --yes";

/// A complete Kubernetes cluster in one binary.
///
/// `ferrokube up` starts a cluster on this host and returns when its node is Ready and DNS answers.
#[derive(Debug, Parser)]
#[command(name = "ferrokube", version = env!("CARGO_PKG_VERSION"), propagate_version = false, arg_required_else_help = true, after_help = MORE)]
pub struct Cli {
    #[command(flatten)]
    pub which: Which,
    #[command(subcommand)]
    pub command: Cmd,
}

#[derive(Debug, Subcommand)]
pub enum Cmd {
    /// Start the cluster in the background and wait until it is ready
    Up {
        #[command(flatten)]
        shape: Shape,
        #[command(flatten)]
        join: commands::join::Join,
        /// Also run a small web app behind a Service and print its URL
        #[arg(long)]
        demo: bool,
    },
    /// Run the cluster in the foreground
    Server {
        #[command(flatten)]
        shape: Shape,
        #[command(flatten)]
        join: commands::join::Join,
        #[arg(long, hide = true)]
        told_to_parent: bool,
    },
    /// Run a node alone, of a cluster on another host: the first start joins it with a token
    Agent(commands::agent::Agent),
    /// Show what runs
    Status {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// List the clusters of this host
    Ls {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Print the daemon's log, whole or of one component
    Logs {
        /// Upstream's name of a component, or `daemon`
        component: Option<String>,
        /// Go on as it grows
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines
        #[arg(long, value_name = "N")]
        tail: Option<usize>,
        /// Of a further node of this host
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
    /// Run the kubectl on the PATH with this cluster's kubeconfig
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Find what is at fault on this host and between the nodes, and its cure
    Check {
        /// Judge the running cluster by the checks of the CIS benchmark instead
        #[arg(long)]
        cis: bool,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Exit code when something fails [default: 1; with --cis 0]
        #[arg(long, value_name = "N")]
        exit_code: Option<u8>,
    },
    /// Stop the cluster and its pods; `up` continues from where it was
    Down,
    /// Remove the cluster and everything it made on this host
    Reset {
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Have the host start the cluster when it boots (a service of systemd)
    Install {
        #[command(flatten)]
        shape: Shape,
        /// Also start it now; a cluster that `up` has started is handed over while its pods go on
        #[arg(long)]
        now: bool,
    },
    /// Stop the cluster's service and remove it; the cluster stays for `up`
    Uninstall,
    /// Work with the nodes of this host: `up --nodes N` makes several
    #[command(subcommand)]
    Node(Node),
    /// Work with the images of this host's nodes
    Image {
        /// Only on this node of this host [default: on all of them; of ls and save the host's own]
        #[arg(long, global = true, value_name = "NODE")]
        node: Option<String>,
        #[command(subcommand)]
        command: Image,
    },
    /// Work with the tokens by which further machines join
    #[command(subcommand)]
    Token(Token),
    /// Run a BGP speaker alone, and show what it knows
    Bgp(commands::bgp::Bgp),
    /// Run a BGP route reflector alone: the speaker of `bgp`, which leaves the kernel's routes alone
    RouteReflector(commands::bgp::Reflector),
    /// Make a folder of the programs that controller-runtime's envtest starts, and print the line that names it
    Assets { dir: PathBuf },
    /// Print the administrator's kubeconfig
    Kubeconfig,
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
    /// Print the version
    Version,
    #[command(external_subcommand)]
    Component(Vec<OsString>),
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Import a docker archive, an OCI archive or an OCI layout directory; `-` reads standard input
    Import {
        file: PathBuf,
        /// Name the image so; without a tag, each image keeps the tag that the archive gives it
        #[arg(long = "as", value_name = "NAME")]
        called: Option<String>,
    },
    /// List images
    Ls {
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Pull an image from its registry
    Pull { image: String },
    /// Remove an image
    Rm { image: String },
    /// Write images as an archive that `docker load` and `import` read
    Save {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// The archive [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Give an image another name
    Tag {
        image: String,
        #[arg(value_name = "NAME")]
        other: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Node {
    /// List the cluster's nodes, with the processes of those on this host
    Ls {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Make another node on this host and wait until it is Ready
    Add {
        /// Its name [default: made from this host's]
        #[arg(value_name = "NODE")]
        node: Option<String>,
        /// Labels of the node, key=value
        #[arg(long, value_delimiter = ',', value_name = "LABEL")]
        label: Vec<String>,
        /// Taints that it registers with, key=value:effect
        #[arg(long, value_delimiter = ',', value_name = "TAINT")]
        taint: Vec<String>,
    },
    /// Remove a node of this host with all that it keeps; `kubectl drain` moves its pods first
    Rm {
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// End a node of this host as when a machine goes down; it stays down until `node start`
    Stop {
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Start a node of this host that was stopped, and wait until it is Ready
    Start {
        #[arg(value_name = "NODE")]
        node: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it: whoever has it can make a machine a node
    Create {
        /// How long it can be used; 0 is for ever
        #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
        ttl: Duration,
        /// What it is for, in the list
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// For a further server: print the command by which it joins within two hours, with the cluster's keys
        #[arg(long)]
        control_plane: bool,
    },
    /// List the tokens, without their secrets
    List {
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Take tokens back; machines that have joined stay
    Revoke {
        /// Ids or whole tokens
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// Parses the command line and runs the command. A component's upstream name, as argv[0] or as the first word, runs
/// that component alone; a CNI plugin's name as argv[0] is a call by the CNI protocol.
pub fn run() -> Result<()> {
    let mut args: Vec<_> = std::env::args_os().collect();
    let program = args.first().map(PathBuf::from).unwrap_or_default();
    let program = program.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    if components::is_link(&program) {
        args[0] = program.into();
        return components::run(&args);
    }
    if cni::is_builtin(&program) {
        std::process::exit(cni::exec::main(&program));
    }
    let cli = Cli::parse_from(args);
    let which = &cli.which;
    match cli.command {
        Cmd::Up { shape, join, demo } => commands::up::run(which, &shape, &join, demo),
        Cmd::Server { shape, join, told_to_parent } => commands::server::run(which, &shape, &join, told_to_parent),
        Cmd::Agent(agent) => commands::agent::run(which, &agent),
        Cmd::Status { output } => commands::status::run(which, output),
        Cmd::Ls { output } => commands::ls::run(which, output),
        Cmd::Logs { component, follow, tail, node } => {
            commands::logs::run(which, component.as_deref(), follow, tail, node.as_deref())
        }
        Cmd::Kubectl { args } => commands::kubectl::run(which, &args),
        Cmd::Check { cis: true, output, exit_code } => commands::check::cis(which, output, exit_code.unwrap_or(0)),
        Cmd::Check { cis: false, output, exit_code } => commands::check::host(which, output, exit_code.unwrap_or(1)),
        Cmd::Down => commands::down::run(which),
        Cmd::Reset { yes } => commands::reset::run(which, yes),
        Cmd::Install { shape, now } => commands::install::install(which, &shape, now),
        Cmd::Uninstall => commands::install::uninstall(which),
        Cmd::Node(node) => commands::node::run(which, &node),
        Cmd::Image { node, command } => commands::image::run(which, node.as_deref(), &command),
        Cmd::Token(token) => commands::token::run(which, &token),
        Cmd::Bgp(bgp) => commands::bgp::run(bgp),
        Cmd::RouteReflector(reflector) => commands::bgp::reflector(reflector),
        Cmd::Assets { dir } => commands::assets::run(&dir),
        Cmd::Kubeconfig => commands::misc::kubeconfig(which),
        Cmd::Completion { shell } => commands::misc::completion(shell),
        Cmd::Version => commands::misc::version(),
        Cmd::Component(args) => components::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_is_meant_for_kubectl_is_passed_on() {
        let words = |line: &str| Cli::parse_from(line.split(' '));
        let passed = |line: &str| match words(line).command {
            Cmd::Kubectl { args } => args.iter().filter_map(|arg| arg.to_str().map(str::to_owned)).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(passed("ferrokube kubectl get pods -o json --name x"), ["get", "pods", "-o", "json", "--name", "x"]);
        assert_eq!(passed("ferrokube kubectl -n a get pods"), ["-n", "a", "get", "pods"]);
        let cli = words("ferrokube --name other kubectl get nodes");
        assert_eq!(cli.which.name.as_deref(), Some("other"));
    }

    #[test]
    fn flags_of_components_may_begin_with_dashes_and_be_said_again() {
        Cli::command().debug_assert();
        let line =
            "ferrokube up --kubelet-arg --max-pods=7 --kubelet-arg v=2 --tls-san a,b --feature-gates A=true,B=false";
        let Cmd::Up { shape, .. } = Cli::parse_from(line.split(' ')).command else { panic!("up") };
        assert_eq!(shape.options.host.kubelet_arg, Some(vec!["--max-pods=7".to_owned(), "v=2".to_owned()]));
        assert_eq!(shape.options.cluster.tls_san.map(|names| names.len()), Some(2));
        assert_eq!(shape.options.cluster.feature_gates.map(|gates| gates.0.len()), Some(2));
    }

    /// `image tag A B --name second` took no `--name`: its own second word was called so.
    #[test]
    fn no_command_hides_the_words_that_name_a_cluster() {
        fn look(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| !arg.is_global_set()) {
                let id = arg.get_id().as_str();
                assert!(!["name", "data_dir"].contains(&id), "{}: {id}", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
    }
}
