//! The real etcdctl, over TLS with client certificates and without TLS: looked for in `ETCDCTL` and in `PATH`. Debian's
//! is 3.4, whose calls to one endpoint say its whole URL as `:authority` when that is http.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use etcd::daemon::{Config, Daemon, TlsFiles};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

fn etcdctl() -> Option<PathBuf> {
    let named = std::env::var_os("ETCDCTL").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named.or_else(|| std::env::split_paths(&path).map(|p| p.join("etcdctl")).find(|p| p.exists()));
    if found.is_none() {
        eprintln!("skipped: etcdctl is neither named by ETCDCTL nor in PATH");
    }
    found
}

/// Writes an authority, a server's and a client's certificate.
fn certificates(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("write");
    let mut authority = CertificateParams::new(vec![]).expect("params");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("key");
    write("ca.crt", authority.self_signed(&key).expect("certificate").pem());
    let issuer = Issuer::new(authority, key);
    for (name, names) in [("server", vec!["localhost".to_owned(), "127.0.0.1".to_owned()]), ("client", vec![])] {
        let key = KeyPair::generate().expect("key");
        let certificate = CertificateParams::new(names).expect("params").signed_by(&key, &issuer).expect("signed");
        write(&format!("{name}.crt"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

struct Client {
    program: PathBuf,
    dir: PathBuf,
    url: String,
}

impl Client {
    async fn run(&self, arguments: &[&str], input: &str, certificate: bool) -> (bool, String) {
        let mut command = Command::new(&self.program);
        command.args(["--endpoints", &self.url, "--cacert"]).arg(self.dir.join("ca.crt"));
        if certificate {
            command.arg("--cert").arg(self.dir.join("client.crt")).arg("--key").arg(self.dir.join("client.key"));
        } else {
            command.args(["--dial-timeout", "2s", "--command-timeout", "2s"]);
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).await.expect("input");
        let output = child.wait_with_output().await.expect("output");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs and expects success; gives the output.
    async fn ok(&self, line: &str) -> String {
        let (done, output) = self.run(&line.split(' ').collect::<Vec<_>>(), "", true).await;
        assert!(done, "etcdctl {line}: {output}");
        output
    }

    async fn fails(&self, line: &str, with: &str) {
        let (done, output) = self.run(&line.split(' ').collect::<Vec<_>>(), "", true).await;
        assert!(!done && output.contains(with), "etcdctl {line}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works() {
    let Some(program) = etcdctl() else { return };
    let dir = tempfile::tempdir().expect("dir");
    certificates(dir.path());
    let tls = TlsFiles {
        cert: Some(dir.path().join("server.crt")),
        key: Some(dir.path().join("server.key")),
        trusted_ca: Some(dir.path().join("ca.crt")),
        client_cert_auth: true,
    };
    let config = Config {
        data_dir: dir.path().join("data"),
        listen_client_urls: vec!["https://127.0.0.1:0".into()],
        tls,
        ..Config::default()
    };
    let daemon = Daemon::start(config).await.expect("start");
    let client = Client { program, dir: dir.path().to_owned(), url: daemon.urls()[0].clone() };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(daemon.serve(stop.clone()));

    let (let_in, output) = client.run(&["get", "a"], "", false).await;
    assert!(!let_in, "without a client certificate: {output}");
    keys(&client).await;
    transactions_and_watches(&client).await;
    leases(&client).await;
    maintenance(&client).await;
    stop.cancel();
    serving.await.expect("serving");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_asks_one_endpoint_over_plain_http() {
    let Some(program) = etcdctl() else { return };
    let dir = tempfile::tempdir().expect("dir");
    let config = Config {
        data_dir: dir.path().join("data"),
        listen_client_urls: vec!["http://127.0.0.1:0".into()],
        ..Config::default()
    };
    let daemon = Daemon::start(config).await.expect("start");
    let url = daemon.urls()[0].clone();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(daemon.serve(stop.clone()));
    let ask = async |line: &str| {
        let mut command = Command::new(&program);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &url, "--command-timeout", "5s"]).args(line.split(' '));
        let output = command.output().await.expect("etcdctl runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "etcdctl {line}: {said}");
        said
    };
    assert!(ask("endpoint status").await.contains("3.7.3"));
    assert!(ask("endpoint hashkv").await.contains(&url));
    assert_eq!(ask("alarm list").await, "");
    ask("defrag").await;
    ask("put a 1").await;
    assert!(ask(&format!("snapshot save {}", dir.path().join("s.db").display())).await.contains("s.db"));
    assert!(ask("member list").await.contains("started, default"));
    stop.cancel();
    serving.await.expect("serving");
}

async fn keys(client: &Client) {
    assert_eq!(client.ok("put a 1").await, "OK\n");
    assert_eq!(client.ok("put a 2 --prev-kv").await, "OK\na\n1\n");
    client.ok("put b/1 z").await;
    client.ok("put b/2 y").await;
    assert_eq!(client.ok("get a").await, "a\n2\n");
    assert_eq!(client.ok("get a --rev=2 --print-value-only").await, "1\n");
    assert_eq!(client.ok("get b/ --prefix --sort-by=VALUE").await, "b/2\ny\nb/1\nz\n");
    assert_eq!(client.ok("get b/ --prefix --limit=1 --keys-only").await, "b/1\n\n");
    // Debian's etcdctl is older than the flag.
    if client.ok("get --help").await.contains("--stream") {
        assert_eq!(client.ok("get b/ --prefix --stream").await, "b/1\nz\nb/2\ny\n");
    }
    assert_eq!(client.ok("del b/ --prefix --prev-kv").await, "2\nb/1\nz\nb/2\ny\n");
    client.fails("get a --rev=100", "etcdserver: mvcc: required revision is a future revision").await;
}

async fn transactions_and_watches(client: &Client) {
    let txn = "mod(\"a\") > \"0\"\n\nput c 1\nget a\n\nput c 2\n\n";
    let (done, output) = client.run(&["txn"], txn, true).await;
    assert!(done && output == "SUCCESS\n\nOK\n\na\n2\n", "{output}");
    let twice = "\nput c 1\nput c 2\n\n\n";
    let (done, output) = client.run(&["txn"], twice, true).await;
    assert!(!done && output.contains("etcdserver: duplicate key given in txn request"), "{output}");
    let mut watch = Command::new("timeout");
    watch.arg("2").arg(&client.program).args(["--endpoints", &client.url, "--cacert"]);
    watch.arg(client.dir.join("ca.crt")).arg("--cert").arg(client.dir.join("client.crt"));
    watch.arg("--key").arg(client.dir.join("client.key")).args(["watch", "a", "--rev=2", "--prev-kv"]);
    let seen = watch.output().await.expect("watch");
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "PUT\na\n1\nPUT\na\n1\na\n2\n");
    client.ok("compaction 4").await;
    client.fails("get a --rev=2", "etcdserver: mvcc: required revision has been compacted").await;
}

async fn leases(client: &Client) {
    let granted = client.ok("lease grant 600").await;
    let id = granted.split(' ').nth(1).expect("an ID").to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(600s)\n"));
    client.ok(&format!("put l 1 --lease={id}")).await;
    assert!(client.ok(&format!("lease timetolive {id} --keys")).await.contains("attached keys([l])"));
    assert!(client.ok(&format!("lease keep-alive --once {id}")).await.contains("keepalived with TTL(600)"));
    assert_eq!(client.ok("lease list").await, format!("found 1 leases\n{id}\n"));
    client.ok(&format!("lease revoke {id}")).await;
    assert_eq!(client.ok("get l").await, "");
    client.fails("lease revoke 1234", "etcdserver: requested lease not found").await;
}

async fn maintenance(client: &Client) {
    assert!(client.ok("endpoint status").await.contains("3.7.3"));
    assert!(client.ok("endpoint health").await.contains("is healthy"));
    let hash = client.ok("endpoint hashkv -w=json").await;
    assert!(hash.contains("\"compact_revision\":4"), "{hash}");
    assert!(client.ok("member list").await.contains("started, default"));
    assert_eq!(client.ok("alarm list").await, "");
    client.ok("defrag").await;
    let file = client.dir.join("snapshot.db");
    client.ok(&format!("snapshot save {}", file.display())).await;
    let options = etcd::Options::new(client.dir.join("restored"));
    etcd::engine::restore::restore(&file, &options).expect("restores");
    let restored = etcd::Etcd::open(options).expect("opens");
    assert_eq!(restored.range(crate::support::get("a")).await.expect("range").kvs[0].value, "2");
    restored.close();
}
