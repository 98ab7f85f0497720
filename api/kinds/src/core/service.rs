//! `services`.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, among, follows, one_of, one_of_if_set};
use crate::core::endpoints::endpoint_ip;
use crate::hooks::{Context, Hooks};
use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs};
use crate::print::{age, joined, labels, load_balancer, name};
use crate::value::{at, default_at, int, items, items_mut, map, remove, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Service", "services")
        .short(&["svc"])
        .category("all")
        .stored_at("/registry/services/specs")
        .connect("proxy", "ServiceProxyOptions", Action::Proxy, Verbs::PROXY)
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Type"),
            Column::text("Cluster-IP"),
            Column::text("External-IP"),
            Column::text("Port(s)"),
            Column::text("Age"),
            Column::text("Selector").wide(),
        ])
        .selectable(vec![Selectable::path("spec.clusterIP"), Selectable::path("spec.type")])
        .names(NameRule::Label)
        .created_by_update()
        .hooks(Hooks {
            row,
            default,
            prepare_update,
            warnings,
            validate,
            validate_update,
            validate_status,
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = items(object, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
    vec![
        name(object),
        text(object, "spec.type").into(),
        cluster_ip.into(),
        external_ip(object).into(),
        port_list(object).into(),
        age(object, now),
        labels(object, "spec.selector"),
    ]
}

fn external_ip(object: &Value) -> String {
    let external = joined(object, "spec.externalIPs", ",");
    match text(object, "spec.type") {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => {
            let balancer = load_balancer(object, "status.loadBalancer.ingress");
            match (balancer.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".to_owned(),
                (false, true) => balancer,
                (true, false) => external,
                (false, false) => format!("{balancer},{external}"),
            }
        }
        "ExternalName" => text(object, "spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn port_list(object: &Value) -> String {
    let one = |p: &Value| {
        let (port, protocol) = (int(p, "port").unwrap_or(0), text(p, "protocol"));
        match int(p, "nodePort").unwrap_or(0) {
            0 => format!("{port}/{protocol}"),
            node_port => format!("{port}:{node_port}/{protocol}"),
        }
    };
    match items(object, "spec.ports") {
        [] => "<none>".to_owned(),
        ports => ports.iter().map(one).collect::<Vec<_>>().join(","),
    }
}

/// Seconds that a client sticks to an endpoint.
const AFFINITY_SECONDS: i64 = 10_800;

/// Defaults that depend on the type and on other fields.
fn default(service: &mut Value) {
    if at(service, "spec").is_none() {
        return;
    }
    match text(service, "spec.sessionAffinity") {
        "None" => drop(remove(service, "spec.sessionAffinityConfig")),
        "ClientIP" => default_at(service, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", AFFINITY_SECONDS),
        _ => {}
    }
    for port in items_mut(service, "spec.ports") {
        let target = at(port, "targetPort").is_none_or(|t| t == 0 || t == "");
        if let (true, Some(number)) = (target, int(port, "port")) {
            set(port, "targetPort", number);
        }
    }
    if externally_accessible(service) && text(service, "spec.externalTrafficPolicy").is_empty() {
        set(service, "spec.externalTrafficPolicy", "Cluster");
    }
    if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&text(service, "spec.type")) {
        default_at(service, "spec.internalTrafficPolicy", "Cluster");
    }
    if text(service, "spec.type") == "LoadBalancer" {
        default_at(service, "spec.allocateLoadBalancerNodePorts", true);
        for ingress in items_mut(service, "status.loadBalancer.ingress") {
            if !text(ingress, "ip").is_empty() {
                default_at(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// Reached from outside the cluster: by its type, or by external addresses of a cluster IP.
fn externally_accessible(service: &Value) -> bool {
    let kind = text(service, "spec.type");
    kind == "LoadBalancer"
        || kind == "NodePort"
        || (kind == "ClusterIP" && !items(service, "spec.externalIPs").is_empty())
}

/// What the old type had and the new type has no use for goes away, unless the user changed it too: then validation
/// tells him.
fn prepare_update(service: &mut Value, old: &Value, _context: &Context) {
    let kept = |service: &Value, path: &str| same(at(service, path), at(old, path));
    let (kind, was) = (text(service, "spec.type").to_owned(), text(old, "spec.type"));
    if was != "ExternalName" && kind == "ExternalName" {
        if kept(service, "spec.clusterIP") && kept(service, "spec.clusterIPs") {
            remove(service, "spec.clusterIP");
            remove(service, "spec.clusterIPs");
        }
        for path in ["spec.ipFamilies", "spec.ipFamilyPolicy", "spec.internalTrafficPolicy"] {
            if kept(service, path) {
                remove(service, path);
            }
        }
    }
    let node_ports = |kind: &str| kind == "NodePort" || kind == "LoadBalancer";
    if node_ports(was) && !node_ports(&kind) {
        let known: Vec<i64> = items(old, "spec.ports").iter().filter_map(|p| int(p, "nodePort")).collect();
        let wanted = |p: &Value| int(p, "nodePort").is_none_or(|n| n == 0 || known.contains(&n));
        if items(service, "spec.ports").iter().all(wanted) {
            items_mut(service, "spec.ports").for_each(|p| drop(remove(p, "nodePort")));
        }
    }
    let health = |service: &Value| {
        text(service, "spec.type") == "LoadBalancer" && text(service, "spec.externalTrafficPolicy") == "Local"
    };
    let drops = [
        ("spec.healthCheckNodePort", health(old) && !health(service)),
        ("spec.allocateLoadBalancerNodePorts", was == "LoadBalancer" && kind != "LoadBalancer"),
        ("spec.loadBalancerClass", was == "LoadBalancer" && kind != "LoadBalancer"),
        ("spec.externalTrafficPolicy", externally_accessible(old) && !externally_accessible(service)),
    ];
    for (path, drop) in drops {
        if drop && kept(service, path) {
            remove(service, path);
        }
    }
    if kind != "LoadBalancer" {
        remove(service, "status.loadBalancer");
    }
}

/// The annotation that topology-mode took the place of.
const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

fn warnings(service: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if map(service, "metadata.annotations").is_some_and(|all| all.contains_key(OLD_HINTS)) {
        let text =
            format!("annotation {OLD_HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead");
        warnings.push(text);
    }
    if !items(service, "spec.externalIPs").is_empty() {
        let text = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(text.to_owned());
    }
    if text(service, "spec.type") != "ExternalName" && !text(service, "spec.externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if headless(service) && text(service, "spec.sessionAffinity") == "ClientIP" {
        warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
    }
    if text(service, "spec.trafficDistribution") == "PreferClose" {
        let text = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(text.to_owned());
    }
    warnings
}

/// Longest time that a client sticks to an endpoint, in seconds.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

fn headless(service: &Value) -> bool {
    matches!(items(service, "spec.clusterIPs"), [ip] if ip == "None")
}

fn validate(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(&mut errors, service, None);
    errors
}

/// Everything wrong with a service; addresses that `old` has may stay.
fn check(errors: &mut Errors, service: &Value, old: Option<&Value>) {
    let path = Path::root("spec");
    let spec = at(service, "spec").unwrap_or(&Value::Null);
    let kind = text(spec, "type");
    if items(spec, "ports").is_empty() && !headless(service) && kind != "ExternalName" {
        errors.push(FieldError::required(path.child("ports"), ""));
    }
    by_type(errors, path, service, kind);
    ports(errors, path, spec, kind);
    crate::metadata::labels(map(spec, "selector"), &path.child("selector"), errors);
    affinity(errors, path, spec);
    cluster_ips(errors, path, service, old);
    let known = old.map_or(&[][..], |o| items(o, "spec.externalIPs"));
    let list = path.child("externalIPs");
    for (i, ip) in items(spec, "externalIPs").iter().enumerate() {
        let text = ip.as_str().unwrap_or("");
        let before = errors.len();
        if !known.contains(ip) {
            follows(errors, list.index(i), text, names::ip);
        }
        if errors.len() == before {
            endpoint_ip(errors, list.index(i), text);
        }
    }
    one_of(errors, &path, spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    load_balancer_fields(errors, path, spec, kind);
    policies(errors, path, service, kind);
}

fn by_type(errors: &mut Errors, path: Path, service: &Value, kind: &str) {
    let ips = path.child("clusterIPs");
    if matches!(kind, "LoadBalancer" | "NodePort") && headless(service) {
        let message = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(ips.index(0), "None", message));
    }
    if kind != "ExternalName" {
        return;
    }
    for (key, set) in [
        ("clusterIPs", !items(service, "spec.clusterIPs").is_empty()),
        ("ipFamilies", !items(service, "spec.ipFamilies").is_empty()),
        ("ipFamilyPolicy", at(service, "spec.ipFamilyPolicy").is_some()),
    ] {
        if set {
            errors.push(FieldError::forbidden(path.child(key), "may not be set for ExternalName services"));
        }
    }
    let name = text(service, "spec.externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.push(FieldError::required(path.child("externalName"), "")),
        name => follows(errors, path.child("externalName"), name, names::dns1123_subdomain),
    }
}

fn ports(errors: &mut Errors, path: Path, spec: &Value, kind: &str) {
    let list = path.child("ports");
    let ports = items(spec, "ports");
    let number = |p: &Value, key: &str| int(p, key).unwrap_or(0);
    let mut names_seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = list.index(i);
        let name = text(port, "name");
        if ports.len() > 1 && name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else if !name.is_empty() {
            follows(errors, path.child("name"), name, names::dns1123_label);
            if names_seen.contains(&name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
            names_seen.push(name);
        }
        let own = number(port, "port");
        errors.extend(names::port_number(own).into_iter().map(|m| FieldError::invalid(path.child("port"), own, m)));
        one_of(errors, &path, port, "protocol", &["SCTP", "TCP", "UDP"]);
        crate::check::port(errors, path.child("targetPort"), at(port, "targetPort"));
        crate::check::named_if_set(errors, &path, port, "appProtocol", names::qualified_name);
        let node = number(port, "nodePort");
        if kind == "ClusterIP" && node != 0 {
            let message = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(path.child("nodePort"), message));
        }
        let twin = |key: &'static str| {
            let same =
                move |p: &&Value| number(p, key) == number(port, key) && text(p, "protocol") == text(port, "protocol");
            ports[..i].iter().any(|p| same(&p))
        };
        if node != 0 && twin("nodePort") {
            errors.push(FieldError::duplicate(path.child("nodePort"), node));
        }
        if twin("port") {
            let value = serde_json::json!({"protocol": text(port, "protocol"), "port": own, "targetPort": 0});
            errors.push(FieldError::duplicate(path, value));
        }
    }
}

fn affinity(errors: &mut Errors, path: Path, spec: &Value) {
    one_of(errors, &path, spec, "sessionAffinity", &["ClientIP", "None"]);
    let config = path.child("sessionAffinityConfig");
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let seconds = int(spec, "sessionAffinityConfig.clientIP.timeoutSeconds").unwrap_or(0);
            if seconds <= 0 || seconds > MAX_AFFINITY_SECONDS {
                let message = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                let client = config.child("clientIP");
                errors.push(FieldError::invalid(client.child("timeoutSeconds"), seconds, message));
            }
        }
        "None" if at(spec, "sessionAffinityConfig").is_some() => {
            errors.push(FieldError::forbidden(config, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn cluster_ips(errors: &mut Errors, path: Path, service: &Value, old: Option<&Value>) {
    let spec = at(service, "spec").unwrap_or(&Value::Null);
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let list = path.child("clusterIPs");
    let ips: Vec<&str> = items(spec, "clusterIPs").iter().filter_map(Value::as_str).collect();
    match (text(spec, "clusterIP"), ips.first()) {
        ("", Some(_)) => {
            let message = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(list, ips.clone(), message));
        }
        (_, None) if !text(spec, "clusterIP").is_empty() => errors.push(FieldError::required(list, "")),
        (ip, Some(first)) if ip != *first => {
            errors.push(FieldError::invalid(list, ips.clone(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    families(errors, path, spec);
    let known = old.map_or(&[][..], |o| items(o, "spec.clusterIPs"));
    let mut broken = false;
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if ips.len() > 1 {
                broken = true;
                errors.push(FieldError::invalid(list, ips.clone(), "'None' must be the first and only value"));
            }
        } else if !known.iter().any(|k| k == ip) {
            let before = errors.len();
            follows(errors, list.index(i), ip, names::ip);
            broken |= errors.len() > before;
        }
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(list, ips.clone(), "may only hold up to 2 values"));
    }
    if broken {
        return;
    }
    let six = |ip: &&str| ip.contains(':');
    if ips.len() > 1 && (ips.iter().all(six) || !ips.iter().any(six)) {
        let message = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(list, ips.clone(), message));
    }
    if !headless(service) {
        for (i, (ip, family)) in ips.iter().zip(items(spec, "ipFamilies")).enumerate() {
            let wanted = family.as_str().unwrap_or("");
            if (wanted == "IPv4" && six(ip)) || (wanted == "IPv6" && !six(ip)) {
                let message = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
                errors.push(FieldError::invalid(list.index(i), *ip, message));
            }
        }
    }
}

fn families(errors: &mut Errors, path: Path, spec: &Value) {
    let list = path.child("ipFamilies");
    let families: Vec<&str> = items(spec, "ipFamilies").iter().filter_map(Value::as_str).collect();
    for (i, family) in families.iter().enumerate() {
        among(errors, list.index(i), family, &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(list.index(i), *family));
        }
    }
    let allowed = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    one_of_if_set(errors, &path, spec, "ipFamilyPolicy", &allowed);
}

fn load_balancer_fields(errors: &mut Errors, path: Path, spec: &Value, kind: &str) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let balanced = kind == "LoadBalancer";
    let ranges = items(spec, "loadBalancerSourceRanges");
    let list = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.push(FieldError::forbidden(list, only));
    }
    for (i, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        follows(errors, list.index(i), range.trim(), names::cidr);
    }
    if at(spec, "allocateLoadBalancerNodePorts").is_some() && !balanced {
        errors.push(FieldError::forbidden(path.child("allocateLoadBalancerNodePorts"), only));
    }
    match at(spec, "loadBalancerClass").and_then(Value::as_str) {
        Some(class) if balanced => follows(errors, path.child("loadBalancerClass"), class, names::qualified_name),
        Some(_) => errors.push(FieldError::forbidden(path.child("loadBalancerClass"), only)),
        None => {}
    }
}

fn policies(errors: &mut Errors, path: Path, service: &Value, kind: &str) {
    let spec = at(service, "spec").unwrap_or(&Value::Null);
    let external = text(spec, "externalTrafficPolicy");
    let external_path = path.child("externalTrafficPolicy");
    match (externally_accessible(service), external) {
        (false, "") => {}
        (false, policy) => {
            let message = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(external_path, policy, message));
        }
        (true, _) => one_of(errors, &path, spec, "externalTrafficPolicy", &["Cluster", "Local"]),
    }
    let health = int(spec, "healthCheckNodePort").unwrap_or(0);
    let needs_health = kind == "LoadBalancer" && external == "Local";
    if !needs_health && health != 0 {
        let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(path.child("healthCheckNodePort"), health, message));
    }
    one_of_if_set(errors, &path, spec, "internalTrafficPolicy", &["Cluster", "Local"]);
    let spread = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    one_of_if_set(errors, &path, spec, "trafficDistribution", &spread);
}

fn validate_update(service: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    fixed_ips(&mut errors, service, old);
    let balanced = |s: &Value| text(s, "spec.type") == "LoadBalancer";
    let class = |s| at(s, "spec.loadBalancerClass");
    if balanced(service) && balanced(old) && class(service) != class(old) {
        let value = class(service).cloned().unwrap_or_default();
        errors.push(FieldError::invalid("spec.loadBalancerClass", value, "may not change once set"));
    }
    let health = |s: &Value| balanced(s) && text(s, "spec.externalTrafficPolicy") == "Local";
    let port = |s| int(s, "spec.healthCheckNodePort").unwrap_or(0);
    if health(service) && health(old) && port(service) != port(old) {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", crate::check::IMMUTABLE));
    }
    check(&mut errors, service, Some(old));
    errors
}

/// Addresses and families stay; a second one may come and go.
fn fixed_ips(errors: &mut Errors, service: &Value, old: &Value) {
    let external = |s: &Value| text(s, "spec.type") == "ExternalName";
    if external(service) || external(old) || (headless(service) && headless(old)) {
        return;
    }
    let single = text(service, "spec.ipFamilyPolicy") == "SingleStack";
    for (list, what) in [("clusterIPs", "clusterIP"), ("ipFamilies", "ipFamily")] {
        if list == "ipFamilies" && headless(service) != headless(old) {
            continue;
        }
        let full = format!("spec.{list}");
        let (new, was) = (items(service, &full), items(old, &full));
        let path = |i: usize| format!("spec.{list}[{i}]");
        let mut fixed = |i: usize| errors.push(FieldError::invalid(path(i), new.to_vec(), "may not change once set"));
        if new.len() == was.len() {
            for (i, _) in new.iter().zip(was).enumerate().filter(|(_, (n, w))| n != w) {
                fixed(if list == "ipFamilies" { 0 } else { i });
            }
        } else if !new.is_empty() && !was.is_empty() && new[0] != was[0] {
            fixed(0);
        }
        if was.len() > new.len() && new.is_empty() {
            let message = format!("primary {what} can not be unset");
            errors.push(FieldError::invalid(path(0), new.to_vec(), message));
        }
        if was.len() > new.len() && new.len() == 1 && !single {
            let message = format!("must be set to 'SingleStack' when releasing the secondary {what}");
            let value = at(service, "spec.ipFamilyPolicy").cloned().unwrap_or_default();
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", value, message));
        }
    }
}

fn validate_status(service: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    let balancer = status.child("loadBalancer");
    let path = balancer.child("ingress");
    let ingress = items(service, "status.loadBalancer.ingress");
    if text(service, "spec.type") != "LoadBalancer" && !ingress.is_empty() {
        let message = "may only be used when `spec.type` is 'LoadBalancer'";
        return vec![FieldError::forbidden(path, message)];
    }
    for (i, point) in ingress.iter().enumerate() {
        let path = path.index(i);
        crate::check::named_if_set(&mut errors, &path, point, "ip", names::ip);
        if text(point, "ip").is_empty() && at(point, "ipMode").is_some() {
            let message = "may not be specified when `ip` is not set";
            errors.push(FieldError::forbidden(path.child("ipMode"), message));
        } else {
            one_of_if_set(&mut errors, &path, point, "ipMode", &["Proxy", "VIP"]);
        }
        crate::check::named_if_set(&mut errors, &path, point, "hostname", names::dns1123_subdomain);
    }
    errors
}
