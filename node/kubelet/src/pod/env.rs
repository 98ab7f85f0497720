//! The environment of a container: service links, envFrom, env with references and sources. Pure: the objects it refers
//! to are given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};

use crate::pod::downward_api::{self, Facts};
use crate::pod::expand::expand;
use crate::pod::pods;

/// ConfigMaps and Secrets of the pod's namespace by name; what is missing is not in them.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

/// Bytes of arguments and variables that the kernel gives a program, at most: three quarters of the usual stack.
pub const MOST_BYTES: usize = 6 << 20;
/// What a variable costs beside its name and value: two marks and a pointer.
const EACH: usize = 10;

/// What users read when there is more.
pub fn too_long() -> String {
    format!(
        "commands, arguments and variables of a container are longer than the {MOST_BYTES} bytes that a program can have"
    )
}

/// The result, and what users should be told about skipped keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Environment {
    vars: Vec<(String, String)>,
    at: HashMap<String, usize>,
    /// Bytes of names and values.
    size: usize,
    pub skipped: Vec<String>,
}

impl Environment {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.at.get(name).map(|at| self.vars[*at].1.as_str())
    }

    pub fn vars(&self) -> &[(String, String)] {
        &self.vars
    }

    /// What may still be added.
    fn room(&self) -> usize {
        MOST_BYTES.saturating_sub(self.size)
    }

    pub fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let old = self.at.get(name).copied();
        let more = if old.is_some() { value.len() } else { name.len() + value.len() + EACH };
        self.size = self.size - old.map_or(0, |at| self.vars[at].1.len()) + more;
        if self.size > MOST_BYTES {
            return Err(too_long());
        }
        match old {
            Some(at) => self.vars[at].1 = value,
            None => {
                self.at.insert(name.to_owned(), self.vars.len());
                self.vars.push((name.to_owned(), value));
            }
        }
        Ok(())
    }
}

/// Names of the ConfigMaps and Secrets that a container's variables refer to.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (maps, secrets)
}

/// Any printable ASCII but `=` makes a name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

/// The environment, or why the container can't be configured.
pub fn environment(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    sources: &Sources,
    services: &[Arc<Service>],
) -> Result<Environment, String> {
    let links = links(pod, services);
    let mut env = Environment::default();
    for from in container.env_from.iter().flatten() {
        env_from(pod, from, sources, &mut env)?;
    }
    for var in container.env.iter().flatten() {
        let known = |name: &str| env.get(name).or_else(|| links.get(name).map(String::as_str));
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, env.room(), known).map_err(|_| too_long())?),
            (_, Some(_)) => source(pod, container, var, facts, sources)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(&var.name, value)?;
        }
    }
    for (name, value) in links {
        if env.get(&name).is_none() {
            env.set(&name, value)?;
        }
    }
    Ok(env)
}

fn env_from(
    pod: &Pod,
    from: &k8s_openapi::api::core::v1::EnvFromSource,
    sources: &Sources,
    env: &mut Environment,
) -> Result<(), String> {
    let prefix = from.prefix.as_deref().unwrap_or("");
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut origin = String::new();
    if let Some(map) = &from.config_map_ref {
        match sources.config_maps.get(&map.name) {
            Some(found) => pairs.extend(found.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone()))),
            None if map.optional == Some(true) => {}
            None => return Err(format!("configmap \"{}\" not found", map.name)),
        }
        origin = format!("configMap {}/{}", pods::namespace(pod), map.name);
    }
    if let Some(secret) = &from.secret_ref {
        match sources.secrets.get(&secret.name) {
            Some(found) => pairs.extend(
                found.data.iter().flatten().map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned())),
            ),
            None if secret.optional == Some(true) => {}
            None => return Err(format!("secret \"{}\" not found", secret.name)),
        }
        origin = format!("secret {}/{}", pods::namespace(pod), secret.name);
    }
    let mut bad = Vec::new();
    for (key, value) in pairs {
        let name = format!("{prefix}{key}");
        if is_name(&name) {
            env.set(&name, value)?;
        } else {
            bad.push(key);
        }
    }
    if !bad.is_empty() {
        env.skipped.push(format!(
            "Keys [{}] from the EnvFrom {origin} were skipped since they are considered invalid environment variable names.",
            bad.join(", ")
        ));
    }
    Ok(())
}

fn source(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    facts: &Facts,
    sources: &Sources,
) -> Result<Option<String>, String> {
    let Some(from) = &var.value_from else { return Ok(None) };
    let namespace = pods::namespace(pod);
    if let Some(r) = &from.field_ref {
        return downward_api::field(pod, facts, &r.field_path).map(Some);
    }
    if let Some(r) = &from.resource_field_ref {
        return downward_api::resource(pod, facts, Some(container), r).map(Some);
    }
    if let Some(r) = &from.config_map_key_ref {
        let optional = r.optional == Some(true);
        let Some(map) = sources.config_maps.get(&r.name) else {
            return if optional { Ok(None) } else { Err(format!("configmap \"{}\" not found", r.name)) };
        };
        let value = map.data.as_ref().and_then(|d| d.get(&r.key)).cloned();
        if value.is_none() && !optional {
            return Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", r.key, r.name));
        }
        return Ok(value);
    }
    if let Some(r) = &from.secret_key_ref {
        let optional = r.optional == Some(true);
        let Some(secret) = sources.secrets.get(&r.name) else {
            return if optional { Ok(None) } else { Err(format!("secret \"{}\" not found", r.name)) };
        };
        let value = secret.data.as_ref().and_then(|d| d.get(&r.key));
        if value.is_none() && !optional {
            return Err(format!("couldn't find key {} in Secret {namespace}/{}", r.key, r.name));
        }
        return Ok(value.map(|v| String::from_utf8_lossy(&v.0).into_owned()));
    }
    Err(format!("environment variable {}: its valueFrom is not supported", var.name))
}

/// Variables of the Services that a pod sees: those of its namespace if it wants links, and `kubernetes` always.
fn links(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let wants = pods::spec(pod).enable_service_links.unwrap_or(true);
    let mut out = BTreeMap::new();
    let is_master = |s: &Service| {
        s.metadata.name.as_deref() == Some("kubernetes") && s.metadata.namespace.as_deref() == Some("default")
    };
    let here = |s: &Service| wants && s.metadata.namespace.as_deref() == Some(pods::namespace(pod));
    // A Service of the pod's own namespace comes before the master Service of the same name.
    for service in services.iter().filter(|s| is_master(s)).chain(services.iter().filter(|s| here(s))) {
        link(service, &mut out);
    }
    out
}

fn link(service: &Service, out: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let name = service.metadata.name.as_deref().unwrap_or("").to_uppercase().replace('-', "_");
    let shown = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    out.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (lower, number) = (protocol.to_lowercase(), port.port);
        let url = format!("{lower}://{shown}:{number}");
        if index == 0 {
            out.insert(format!("{name}_SERVICE_PORT"), number.to_string());
            out.insert(format!("{name}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let port_name = port_name.to_uppercase().replace('-', "_");
            out.insert(format!("{name}_SERVICE_PORT_{port_name}"), number.to_string());
        }
        let prefix = format!("{name}_PORT_{number}_{protocol}");
        out.insert(prefix.clone(), url);
        out.insert(format!("{prefix}_PROTO"), lower);
        out.insert(format!("{prefix}_PORT"), number.to_string());
        out.insert(format!("{prefix}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn arc<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Arc<T> {
        Arc::new(object(value))
    }

    #[test]
    fn sources_references_and_links() {
        let pod: Pod = object(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{
            "name": "c",
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)-$(X_k)-$(DB_SERVICE_HOST)-$(NOPE)"},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "zz", "optional": true}}}]}]}}));
        let mut sources = Sources::default();
        sources.config_maps.insert("m".into(), arc(json!({"data": {"k": "v", "bad=": "x"}})));
        sources.secrets.insert("s".into(), arc(json!({"data": {"pw": "c2VjcmV0"}})));
        let db: Arc<Service> = arc(json!({"metadata": {"name": "db", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}}));
        let master: Arc<Service> = arc(json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443}]}}));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env = environment(&pod, container, &Facts::default(), &sources, &[db, master]).unwrap();
        let get = |name: &str| env.get(name).unwrap_or_default();
        assert_eq!(get("B"), "1-v-10.0.0.9-$(NOPE)");
        assert_eq!(get("S"), "secret");
        assert_eq!(get("DB_PORT_5432_TCP"), "tcp://10.0.0.9:5432");
        assert_eq!(get("KUBERNETES_SERVICE_PORT_HTTPS"), "443");
        assert!(env.get("O").is_none());
        assert_eq!(env.skipped.len(), 1);
        sources.secrets.clear();
        let error = environment(&pod, container, &Facts::default(), &sources, &[]).unwrap_err();
        assert_eq!(error, "secret \"s\" not found");
    }

    /// 26 variables of which each names the one before twice stand for a gigabyte.
    #[test]
    fn variables_that_name_each_other_end_at_what_a_program_can_have() {
        let mut vars = vec![json!({"name": "v0", "value": "x".repeat(16)})];
        vars.extend((1..40).map(|i| json!({"name": format!("v{i}"), "value": format!("$(v{0})$(v{0})", i - 1)})));
        let pod: Pod = object(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "env": vars}]}}));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let made = environment(&pod, container, &Facts::default(), &Sources::default(), &[]);
        assert_eq!(made.unwrap_err(), too_long());
        // The same map again and again under other names.
        let from: Vec<_> =
            (0..400).map(|i| json!({"prefix": format!("p{i}_"), "configMapRef": {"name": "m"}})).collect();
        let pod: Pod =
            object(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "envFrom": from}]}}));
        let mut sources = Sources::default();
        sources.config_maps.insert("m".into(), arc(json!({"data": {"k": "x".repeat(1 << 20)}})));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let made = environment(&pod, container, &Facts::default(), &sources, &[]);
        assert_eq!(made.unwrap_err(), too_long());
    }
}
