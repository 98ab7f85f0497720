//! Joining a cluster that is elsewhere: what a machine is told for it, whether it becomes a node ([`super::agent`]) or a
//! further server (`server --server URL --token WORDS`, here). A server that joins gets the keys of the cluster and what
//! is equal on all servers; from then on it is one like the others, and needs no token. I/O: asks the API server, writes
//! the data directory.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::Api;

use super::up::{Claim, Claimed, claim, undo};
use crate::config::{ClusterOptions, Host, Options, Shape, Which, private_dir, write_private_all};
use crate::fault::Fault;
use crate::joining::certs::{self, Opened};
use crate::joining::discovery::{self, Discovered};
use crate::joining::token::Words;

/// A token with everything that can belong to it.
const LONGEST_TOKEN: u64 = 4096;

/// What a machine is told for its first start.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Join {
    /// Address of the API server of a cluster to join, https://HOST:PORT, or of several; for the first start
    #[arg(long, env = "FERROKUBE_SERVER", value_name = "URL", value_delimiter = ',')]
    server: Vec<http::Uri>,
    /// What `ferrokube token create` printed there; for the first start
    #[arg(long, env = "FERROKUBE_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = Words::parse)]
    token: Option<Words>,
    /// The same in a file, so that it stands in no list of processes
    #[arg(long, env = "FERROKUBE_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl Join {
    /// Whether a cluster to join was named.
    pub fn is_told(&self) -> bool {
        !self.server.is_empty()
    }

    /// Whom to ask. `how` is the command that prints it, where the control plane is.
    pub fn servers(&self, how: &str) -> Result<&[http::Uri], Fault> {
        if self.server.is_empty() {
            return Err(missing("--server", how));
        }
        let wrong = |server: &&http::Uri| server.scheme_str() != Some("https") || server.host().is_none();
        match self.server.iter().find(wrong) {
            Some(server) => Err(Fault::usage(format!("--server {server}: it is written like https://192.0.2.1:6443"))),
            None => Ok(&self.server),
        }
    }

    /// The token, wherever it is.
    pub fn words(&self, how: &str) -> Result<Words, Fault> {
        let words = match (&self.token, &self.token_file) {
            (Some(words), _) => words.clone(),
            (None, Some(file)) => read_token(file)?,
            (None, None) => return Err(missing("--token or --token-file", how)),
        };
        if words.pin.is_none() {
            eprintln!("ferrokube: the token names no CA: whoever else has it could pass for the cluster");
        }
        Ok(words)
    }
}

fn missing(flag: &str, how: &str) -> Fault {
    Fault::usage(format!("{flag} is needed for the first start: both are printed where the control plane is: `{how}`"))
}

fn read_token(file: &Path) -> Result<Words, Fault> {
    let wrong = |why: &dyn std::fmt::Display| Fault::usage(format!("--token-file {}: {why}", file.display()));
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut text));
    read.map_err(|error| wrong(&error))?;
    Words::parse(&text).map_err(|why| wrong(&why))
}

/// The first server that answers, and what it showed.
pub async fn discover<'a>(servers: &'a [http::Uri], words: &Words) -> Result<(&'a http::Uri, Discovered)> {
    let mut last = anyhow!("no server was named");
    for server in servers {
        match discovery::discover(server, words).await {
            Ok(found) => return Ok((server, found)),
            // Who answers with a refusal is there, and others would say the same.
            Err(error) if error.is::<Fault>() => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

const HOW: &str = "ferrokube token create --control-plane";

/// Makes this host a further server, if it is told to and has not been one before.
pub fn server(which: &Which, shape: &Shape, join: &Join) -> Result<()> {
    if !join.is_told() || which.load()?.is_some() {
        return Ok(());
    }
    if shape.options.host.credentials.is_some() {
        return Err(Fault::usage("--server and --credentials: a host of the control plane gets its own").into());
    }
    let (servers, words) = (join.servers(HOW)?, join.words(HOW)?);
    if words.key.is_none() {
        let sentence = format!("--token: it is for nodes (`ferrokube agent`); `{HOW}` prints one for a further server");
        return Err(Fault::usage(sentence).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (opened, client) = runtime.block_on(async {
        let (server, found) = discover(servers, &words).await?;
        let client = discovery::with_token(server, &found.ca, &words)?;
        anyhow::Ok((uploaded(&client, &words).await?, client))
    })?;
    let shape = shaped(which, shape.read()?, &opened)?;
    let Claim::New(Claimed { host, fresh, lock }) = claim(which, &shape)? else {
        return Err(anyhow!("the cluster {:?} runs already", which.name()));
    };
    drop(lock);
    let kept = runtime.block_on(free_name(&client, &host.node_name)).and_then(|()| keep(&host, &opened));
    kept.inspect_err(|_| undo(&host, fresh))
}

async fn uploaded(client: &kube::Client, words: &Words) -> Result<Opened> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), certs::NAMESPACE);
    let gone =
        || Fault::failed(format!("the keys for a further server are shown for two hours: `{HOW}` shows them again"));
    let secret = match secrets.get(certs::SECRET).await {
        Ok(secret) => secret,
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => return Err(gone().into()),
        Err(error) => return Err(error.into()),
    };
    let key = words.key.as_ref().ok_or_else(gone)?;
    Ok(certs::open(&secret, key).map_err(|why| Fault::failed(format!("the keys for a further server: {why}")))?)
}

/// The shape of a host that has what is equal on all servers from the others.
fn shaped(which: &Which, shape: Shape, opened: &Opened) -> Result<Shape, Fault> {
    let own = shape.file.as_ref().map(|file| &file.options.cluster);
    let says =
        shape.options.cluster != ClusterOptions::default() || own.is_some_and(|own| *own != ClusterOptions::default());
    let says = says || shape.api_port.is_some() || shape.pod_cidr.is_some() || shape.service_cidr.is_some();
    if says || shape.hardened {
        let sentence = "--server: a server that joins takes what is the cluster's (ports, ranges, --etcd-servers, flags of \
                        the control plane) from the others; say here only what is this host's";
        return Err(Fault::usage(sentence));
    }
    let cluster = &opened.cluster;
    let [ca, cert, key] = opened.etcd(&which.dir());
    let mut host = shape.options.host.clone();
    (host.etcd_cafile, host.etcd_certfile, host.etcd_keyfile) =
        (host.etcd_cafile.or(ca), host.etcd_certfile.or(cert), host.etcd_keyfile.or(key));
    Ok(Shape {
        api_port: Some(cluster.api_port),
        pod_cidr: Some(cluster.pod_cidr),
        service_cidr: Some(cluster.service_cidr),
        cluster_domain: Some(cluster.cluster_domain.clone()),
        hardened: cluster.hardened,
        options: Options { cluster: cluster.options.clone(), host },
        ..shape
    })
}

/// Two hosts of one name would be one node.
async fn free_name(client: &kube::Client, name: &str) -> Result<()> {
    match Api::<Node>::all(client.clone()).get_opt(name).await? {
        None => Ok(()),
        Some(_) => {
            let sentence = format!(
                "a node {name:?} is in the cluster: say another nodeName in --config, or `kubectl delete node {name}` if \
                 its machine is gone"
            );
            Err(Fault::failed(sentence).into())
        }
    }
}

fn keep(host: &Host, opened: &Opened) -> Result<()> {
    let files = opened.files(&host.data_dir);
    let mut dirs: Vec<&Path> = files.iter().filter_map(|(path, _)| path.parent()).collect();
    dirs.dedup();
    dirs.into_iter().try_for_each(private_dir)?;
    write_private_all(&files.iter().map(|(path, content)| (path.as_path(), *content)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_stand_in_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        let token = format!("abcdef.0123456789abcdef@sha256:{}\n", "0a".repeat(32));
        std::fs::write(&file, &token).expect("written");
        let join = Join { token_file: Some(file.clone()), ..Join::default() };
        assert_eq!(join.words(HOW), Words::parse(&token).map_err(Fault::usage));
        std::fs::write(&file, "nonsense").expect("written");
        let said = join.words(HOW).expect_err("refused").sentence;
        assert!(said.starts_with(&format!("--token-file {}: a token is written like", file.display())), "{said}");
        std::fs::remove_file(&file).expect("removed");
        assert!(join.words(HOW).is_err());
        assert!(Join::default().words(HOW).is_err_and(|fault| fault.sentence.starts_with("--token or --token-file")));
    }

    #[test]
    fn every_server_that_is_named_is_an_address() {
        let join = |servers: &[&str]| Join {
            server: servers.iter().map(|text| text.parse().expect("a URI")).collect(),
            ..Join::default()
        };
        assert!(join(&["https://192.0.2.1:6443", "https://api.example"]).servers(HOW).is_ok());
        let said = join(&["https://192.0.2.1:6443", "192.0.2.2:6443"]).servers(HOW).expect_err("refused").sentence;
        assert!(said.starts_with("--server 192.0.2.2:6443: it is written like"), "{said}");
        assert!(join(&[]).servers(HOW).is_err_and(|fault| fault.sentence.contains(HOW)));
    }
}
