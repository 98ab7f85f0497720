//! `registries.yaml`, as k3s has it: mirrors of registries, and how hosts are spoken to (authorities, credentials). Read
//! for every pull, so a change needs no restart; whole or not at all, a mistake is told with its path. I/O: reads files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::Regex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};
use serving::tls::{CertKeyPair, Files};

use super::super::fetch::Credentials;
use super::trust::Trust;

/// A file that is larger is none that a person wrote.
const MAX_FILE: u64 = 1 << 20;
/// Mirrors of one registry, and rewrites of one mirror, that are tried or matched in turn.
const MAX_LIST: usize = 100;
/// Expressions of all mirrors: a short one may compile to all that one may have, and all are compiled at each pull.
const MAX_REWRITES: usize = 200;
/// As much as it takes for any expression that a person writes.
const MAX_PATTERN: usize = 256 << 10;
/// What says something of every registry.
pub const ANY: &str = "*";

/// What the file says.
#[derive(Clone, Default)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    hosts: BTreeMap<String, Host>,
}

/// Other places for the images of a registry, in order, before the registry itself.
#[derive(Clone, Default)]
pub struct Mirror {
    pub endpoints: Vec<String>,
    rewrites: Vec<(Regex, String)>,
}

/// How a host is spoken to.
#[derive(Clone, Default)]
pub struct Host {
    pub credentials: Option<Credentials>,
    pub tls: Option<Arc<HostTls>>,
}

/// Files are named with the field of the registries' file that names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTls {
    ca_file: Option<PathBuf>,
    pair: Option<(PathBuf, PathBuf)>,
    insecure_skip_verify: bool,
}

impl Mirror {
    /// A repository as the mirror calls it: the first expression that matches says how.
    pub fn rewrite(&self, repository: &str) -> String {
        let found = self.rewrites.iter().find(|(pattern, _)| pattern.is_match(repository));
        found.map_or_else(|| repository.to_owned(), |(pattern, to)| pattern.replace(repository, to).into_owned())
    }
}

impl Registries {
    /// The file at a path; nothing where there is none.
    pub fn read(path: &Path) -> Result<Registries, String> {
        let bytes = match path.canonicalize().and_then(|path| linux::root::read_regular(path, MAX_FILE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Registries::default()),
            other => other.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let text = String::from_utf8(bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        Registries::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    pub fn parse(text: &str) -> Result<Registries, String> {
        let bounded = serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: 16 } };
        let value: Value = serde_saphyr::from_str_with_options(text, bounded)
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
        let mut all = Registries::default();
        let fields = fields("", &value, &["mirrors", "configs"])?;
        let mut rewrites = 0;
        for (name, value) in entries("mirrors", fields.get("mirrors"))? {
            let mirror = mirror(&format!("mirrors.{name}"), value)?;
            rewrites += mirror.rewrites.len();
            if rewrites > MAX_REWRITES {
                return Err(format!("mirrors.{name}.rewrite: the file has more than {MAX_REWRITES} expressions"));
            }
            all.mirrors.insert(host_of(name), mirror);
        }
        for (name, value) in entries("configs", fields.get("configs"))? {
            all.hosts.insert(host_of(name), host(&format!("configs.{name}"), value)?);
        }
        Ok(all)
    }

    /// The mirrors of a registry.
    pub fn mirror(&self, registry: &str) -> Option<&Mirror> {
        self.mirrors.get(&host_of(registry)).or_else(|| self.mirrors.get(ANY))
    }

    /// How a host with its port is spoken to.
    pub fn host(&self, host: &str) -> Host {
        let found = self.hosts.get(&host_of(host)).or_else(|| self.hosts.get(ANY));
        found.cloned().unwrap_or_default()
    }

    /// Tries what the file names: asked for before a cluster is started.
    pub fn check(&self) -> Result<(), String> {
        self.hosts.iter().try_for_each(|(name, host)| match &host.tls {
            Some(tls) => tls.client().map(drop).map_err(|why| format!("configs.{name}.tls: {why}")),
            None => Ok(()),
        })
    }
}

impl HostTls {
    /// The client's side of TLS for a host.
    pub fn client(&self) -> Result<rustls::ClientConfig, String> {
        let identity = match &self.pair {
            None => None,
            Some((cert, key)) => {
                let files = Files { cert: cert.clone(), key: key.clone() };
                Some(CertKeyPair::load(files).map_err(|error| format!("cert_file, key_file: {error}"))?)
            }
        };
        let roots = (!self.insecure_skip_verify).then(super::host_roots);
        let mut config = serving::tls::client(roots, identity).map_err(|error| error.to_string())?;
        if let Some(path) = self.ca_file.as_ref().filter(|_| !self.insecure_skip_verify) {
            let trust = authorities(path).and_then(|own| Trust::new(super::host_roots(), own));
            let trust = trust.map_err(|why| format!("ca_file {}: {why}", path.display()))?;
            config.dangerous().set_certificate_verifier(Arc::new(trust));
        }
        Ok(config)
    }
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = linux::root::read_regular(path, MAX_FILE).map_err(|error| error.to_string())?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(all) }
}

/// A host as keys of the file and names of images have it: without scheme and path, Docker's by one name.
fn host_of(name: &str) -> String {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    match name.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The fields of an object that may have these.
fn fields<'a>(path: &str, value: &'a Value, allowed: &[&str]) -> Result<&'a Map<String, Value>, String> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let fields = match value {
        Value::Null => &NONE,
        Value::Object(fields) => fields,
        _ => return Err(format!("{}it must hold {}", place(path), allowed.join(", "))),
    };
    match fields.keys().find(|name| !allowed.contains(&name.as_str())) {
        None => Ok(fields),
        Some(name) => Err(format!("{}: there is no such field; allowed are {}", below(path, name), allowed.join(", "))),
    }
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

/// What stands under names of people's own.
fn entries<'a>(path: &str, value: Option<&'a Value>) -> Result<Vec<(&'a str, &'a Value)>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(fields)) => Ok(fields.iter().map(|(name, value)| (name.as_str(), value)).collect()),
        Some(_) => Err(format!("{path}: it must hold a registry's name on each line")),
    }
}

fn text(path: &str, value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{path}: {value} is not text"))
}

fn mirror(path: &str, value: &Value) -> Result<Mirror, String> {
    let fields = fields(path, value, &["endpoint", "rewrite"])?;
    let mut mirror = Mirror::default();
    let path_of = |name: &str| below(path, name);
    match fields.get("endpoint") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) if list.len() <= MAX_LIST => {
            for url in list {
                mirror.endpoints.push(endpoint(&text(&path_of("endpoint"), url)?, &path_of("endpoint"))?);
            }
        }
        Some(_) => return Err(format!("{}: it must be a list of at most {MAX_LIST} addresses", path_of("endpoint"))),
    }
    let rewrites = entries(&path_of("rewrite"), fields.get("rewrite"))?;
    if rewrites.len() > MAX_LIST {
        return Err(format!("{}: more than {MAX_LIST} expressions", path_of("rewrite")));
    }
    for (pattern, to) in rewrites {
        let path = format!("{}.{pattern}", path_of("rewrite"));
        let compiled = regex::RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
        let compiled = compiled.map_err(|error| {
            format!("{path}: it is no regular expression: {}", error.to_string().lines().last().unwrap_or_default())
        })?;
        mirror.rewrites.push((compiled, text(&path, to)?));
    }
    Ok(mirror)
}

/// An address as it is kept: `https://host[:port]`, maybe with `user:password@`.
fn endpoint(url: &str, path: &str) -> Result<String, String> {
    let given = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let trimmed = given.trim_end_matches('/').trim_end_matches("/v2").trim_end_matches('/');
    let (scheme, host) = trimmed.split_once("://").unwrap_or_default();
    let shown = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if !matches!(scheme, "http" | "https") || host.is_empty() || shown.contains('/') {
        return Err(format!(
            "{path}: {scheme}://{shown} is not an address such as https://mirror.example:5000 (a path goes into rewrite)"
        ));
    }
    Ok(trimmed.to_owned())
}

fn host(path: &str, value: &Value) -> Result<Host, String> {
    let parts = fields(path, value, &["auth", "tls"])?;
    let credentials = parts.get("auth").map(|auth| credentials(&below(path, "auth"), auth)).transpose()?.flatten();
    let Some(value) = parts.get("tls") else { return Ok(Host { credentials, tls: None }) };
    let path = below(path, "tls");
    let tls = fields(&path, value, &["ca_file", "cert_file", "key_file", "insecure_skip_verify"])?;
    let file = |name: &str| {
        let given = tls.get(name).filter(|value| !value.is_null());
        given.map(|value| text(&below(&path, name), value).map(PathBuf::from)).transpose()
    };
    let pair = match (file("cert_file")?, file("key_file")?) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(format!("{path}: cert_file and key_file are given together or not at all")),
    };
    let insecure_skip_verify = match tls.get("insecure_skip_verify") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(skip)) => *skip,
        Some(other) => return Err(format!("{path}.insecure_skip_verify: {other} is not true or false")),
    };
    let tls = HostTls { ca_file: file("ca_file")?, pair, insecure_skip_verify };
    Ok(Host { credentials, tls: Some(Arc::new(tls)) })
}

/// Secrets stay out of messages.
fn credentials(path: &str, value: &Value) -> Result<Option<Credentials>, String> {
    let auth = fields(path, value, &["username", "password", "auth", "identity_token"])?;
    let word = |name: &str| match auth.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("{path}.{name}: it is not text: write it in quotes")),
    };
    let (username, password, token) = (word("username")?, word("password")?, word("identity_token")?);
    let both = word("auth")?;
    if !token.is_empty() {
        return Ok(Some(Credentials::Identity(token)));
    }
    if !username.is_empty() {
        return Ok(Some(Credentials::Password { username, password }));
    }
    if both.is_empty() {
        return Ok(None);
    }
    let wrong = || format!("{path}.auth: it is not user:password in base64");
    let text = BASE64.decode(both.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
    let (username, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Some(Credentials::Password { username: username.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.example:5000", "http://cache:5000/v2/"]
    rewrite:
      "^library/(.*)": "proxy/$1"
  "*":
    endpoint: [all.example]
configs:
  "mirror.example:5000":
    auth: {username: me, password: "1234"}
    tls: {insecure_skip_verify: true}
  "https://ghcr.io":
    auth: {auth: bWU6c2VjcmV0}
  token.example:
    auth: {identity_token: abc}
"#;

    #[test]
    fn a_file_of_k3s_is_read() {
        let all = Registries::parse(FILE).unwrap();
        let docker = all.mirror("docker.io").unwrap();
        assert_eq!(docker.endpoints, ["https://mirror.example:5000", "http://cache:5000"]);
        assert_eq!(docker.rewrite("library/busybox"), "proxy/busybox");
        assert_eq!(docker.rewrite("me/app"), "me/app");
        assert_eq!(all.mirror("registry-1.docker.io").map(|m| m.endpoints.len()), Some(2));
        assert_eq!(all.mirror("other.example").unwrap().endpoints, ["https://all.example"]);
        let user = |host: &str| match all.host(host).credentials {
            Some(Credentials::Password { username, password }) => format!("{username}:{password}"),
            Some(Credentials::Identity(token)) => token,
            _ => String::new(),
        };
        assert_eq!(
            [user("mirror.example:5000"), user("ghcr.io"), user("token.example"), user("x")].join(" "),
            "me:1234 me:secret abc "
        );
        assert!(all.host("mirror.example:5000").tls.is_some_and(|tls| tls.insecure_skip_verify));
        assert!(Registries::parse("").is_ok() && Registries::parse("mirrors:\nconfigs: {}\n").is_ok());
        assert!(Registries::read(Path::new("/nowhere/registries.yaml")).is_ok(), "there need be none");
    }

    #[test]
    fn a_mistake_is_told_with_its_path_and_without_secrets() {
        let says = |text: &str| Registries::parse(text).err().unwrap_or_default();
        assert_eq!(says("mirror: {}"), "mirror: there is no such field; allowed are mirrors, configs");
        let near = says("mirrors: {docker.io: {endpoints: [a]}}");
        assert_eq!(near, "mirrors.docker.io.endpoints: there is no such field; allowed are endpoint, rewrite");
        assert!(says("mirrors: {a: {endpoint: b}}").starts_with("mirrors.a.endpoint: it must be a list"));
        assert!(says("mirrors: {a: {endpoint: ['ftp://b']}}").contains("is not an address such as https://"));
        let path = says("mirrors: {a: {endpoint: ['https://u:secret@b/c']}}");
        assert!(path.contains("a path goes into rewrite") && !path.contains("secret"), "{path}");
        assert!(
            says("mirrors: {a: {rewrite: {'(': x}}}").starts_with("mirrors.a.rewrite.(: it is no regular expression")
        );
        let number = says("configs: {a: {auth: {username: me, password: 1234}}}");
        assert_eq!(number, "configs.a.auth.password: it is not text: write it in quotes");
        assert!(says("configs: {a: {auth: {auth: secret}}}").ends_with("it is not user:password in base64"));
        assert!(says("configs: {a: {tls: {cert_file: /c}}}").contains("given together or not at all"));
        assert!(says("configs: {a: {tls: {verify: no}}}").contains("configs.a.tls.verify: there is no such field"));
        assert!(says("[a]").starts_with("it must hold mirrors, configs"));
        let missing = Registries::parse("configs: {a: {tls: {ca_file: /nowhere/ca.crt}}}").unwrap().check();
        assert!(missing.unwrap_err().starts_with("configs.a.tls: ca_file /nowhere/ca.crt: "));
    }

    #[test]
    fn an_endless_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registries.yaml");
        std::fs::write(&file, "#".repeat(2 << 20)).unwrap();
        assert!(Registries::read(&file).is_err());
        assert!(Registries::parse(&"[".repeat(1000)).is_err(), "as deep as this");
        // A megabyte of mirrors with a hundred short expressions each took gigabytes, at each pull.
        let rewrites: String = (0..100).map(|n| format!("'a{n}': b, ")).collect();
        let mirrors: String = (0..3).map(|n| format!("  m{n}: {{rewrite: {{{rewrites}}}}}\n")).collect();
        let told = Registries::parse(&format!("mirrors:\n{mirrors}")).err().unwrap();
        assert_eq!(told, "mirrors.m2.rewrite: the file has more than 200 expressions");
    }
}
