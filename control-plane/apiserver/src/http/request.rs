//! What a request asks for, read from its method, path and query alone: the attributes that authorisation, routing,
//! audit and metrics share. Pure.

use std::borrow::Cow;

use http::Method;
use meta::{FieldSelector, Status};

/// Query parameters, decoded, in order of appearance.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: Option<&str>) -> Query {
        let pairs = raw.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key, true).into_owned(), decode(value, true).into_owned())
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value, empty when the parameter is absent.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Present and not `false` or `0`, as upstream reads booleans (a bare `?watch` is true).
    pub fn flag(&self, name: &str) -> bool {
        self.tristate(name).unwrap_or(false)
    }

    /// Like [`Query::flag`], telling an absent parameter from a false one.
    pub fn tristate(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !(value.eq_ignore_ascii_case("false") || value == "0"))
    }

    /// An integer parameter; anything else is the client's mistake.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Status::bad_request(format!(
                    "strconv.ParseInt: parsing {}: invalid syntax",
                    meta::text::quote(text)
                ))),
            },
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Decodes percent escapes; broken ones stay as they are. `plus` turns `+` into a blank, as in queries.
pub fn decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || (plus && b == b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match bytes[at] {
            b'%' => match (hex(at + 1), hex(at + 2)) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The attributes of a request. For paths that are no resource only `path` and `verb` are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub path: String,
    /// `get list watch create update patch delete deletecollection` for resources; the method in lower case otherwise.
    pub verb: &'static str,
    pub resource_request: bool,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    /// For namespaces themselves, their own name, as upstream has it.
    pub namespace: String,
    pub name: String,
    /// Whether the path (not only an object) is below `namespaces/<name>/`.
    pub in_namespace: bool,
    /// What follows the subresource, with its leading slash: the path behind a proxy.
    pub tail: String,
}

/// Subresources that belong to a namespace itself rather than to something inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "get",
    }
}

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> RequestInfo {
        let mut info = RequestInfo { path: path.to_owned(), verb: method_word(method), ..RequestInfo::default() };
        let mut parts: Vec<&str> = path.split('/').skip(1).collect();
        if parts.last() == Some(&"") {
            parts.pop();
        }
        match parts.first() {
            Some(&"api") if parts.len() >= 3 => {
                info.version = parts[1].to_owned();
                parts.drain(..2);
            }
            Some(&"apis") if parts.len() >= 4 => {
                info.group = parts[1].to_owned();
                info.version = parts[2].to_owned();
                parts.drain(..3);
            }
            _ => return info,
        }
        if matches!(parts[0], "watch" | "proxy") && parts.len() > 1 {
            let old = parts.remove(0);
            if !info.locate(&parts, 1) {
                return RequestInfo { path: info.path, verb: info.verb, ..RequestInfo::default() };
            }
            info.resource_request = true;
            info.verb = if old == "watch" { "watch" } else { "proxy" };
            return info;
        }
        if !info.locate(&parts, 0) {
            return RequestInfo { path: info.path, verb: info.verb, ..RequestInfo::default() };
        }
        info.resource_request = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD => "get",
            _ => "",
        };
        info.refine_verb(query);
        info
    }

    /// Reads namespace, resource, name and subresource; false when one of them is nothing that can be a name, so that
    /// the path is no resource's: an empty segment, or one that hides a slash.
    fn locate(&mut self, parts: &[&str], prefixes: usize) -> bool {
        let mut parts = parts;
        let good = |part: &&str| !part.is_empty() && !decode(part, false).contains('/');
        if parts[0] == "namespaces" && parts.len() > 1 {
            if !good(&parts[1]) {
                return false;
            }
            self.namespace = decode(parts[1], false).into_owned();
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                self.in_namespace = true;
                parts = &parts[2..];
            }
        }
        if !parts.iter().take(3).all(good) {
            return false;
        }
        let text = |i: usize| parts.get(i).map(|p| decode(p, false).into_owned()).unwrap_or_default();
        self.resource = text(0);
        self.name = text(1);
        self.subresource = text(2);
        if parts.len() >= 3 {
            // The path behind a proxy travels as it was sent, escapes and trailing slash included.
            let skipped = if self.in_namespace { 2 } else { 0 } + if self.group.is_empty() { 3 } else { 4 } + 3;
            self.tail = match self.path.match_indices('/').nth(skipped + prefixes - 1) {
                Some((at, _)) => self.path[at..].to_owned(),
                None => String::new(),
            };
        }
        true
    }

    /// Whether the request lives as long as its client wants.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb, "watch" | "proxy")
            || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }

    fn refine_verb(&mut self, query: &Query) {
        if !self.name.is_empty() {
            return;
        }
        match self.verb {
            "delete" => self.verb = "deletecollection",
            "get" => {
                self.verb = if query.flag("watch") { "watch" } else { "list" };
                // A list of one object by name is authorised as access to that object. The selector is read by the
                // parser that the list itself uses: what is authorised is what is served.
                let fields = FieldSelector::parse(query.text("fieldSelector")).unwrap_or_default();
                self.name =
                    fields.exact("metadata.name").filter(|name| path_segment(name)).unwrap_or_default().to_owned();
            }
            _ => {}
        }
    }
}

/// Whether an object can have this name at all.
fn path_segment(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    #[test]
    fn paths_become_attributes() {
        type Row = (Method, &'static str, &'static str, &'static str, &'static str, &'static str, &'static str);
        let cases: [Row; 12] = [
            (Method::GET, "/api/v1/pods", "list", "pods", "", "", ""),
            (Method::GET, "/api/v1/pods?watch=1", "watch", "pods", "", "", ""),
            (Method::GET, "/api/v1/namespaces/a/pods/x/log", "get", "pods", "a", "x", "log"),
            (Method::GET, "/api/v1/namespaces/a", "get", "namespaces", "a", "a", ""),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update", "namespaces", "a", "a", "finalize"),
            (Method::POST, "/apis/apps/v1/namespaces/a/deployments", "create", "deployments", "a", "", ""),
            (Method::DELETE, "/apis/apps/v1/namespaces/a/deployments", "deletecollection", "deployments", "a", "", ""),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch",
                "deployments",
                "a",
                "d",
                "scale",
            ),
            (Method::GET, "/api/v1/watch/pods", "watch", "pods", "", "", ""),
            (Method::GET, "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", "list", "nodes", "", "n1", ""),
            (Method::HEAD, "/api/v1/nodes/n", "get", "nodes", "", "n", ""),
            (Method::GET, "/apis/apps/v1", "get", "", "", "", ""),
        ];
        for (method, target, verb, resource, namespace, name, subresource) in cases {
            let i = info(method, target);
            assert_eq!(
                (i.verb, &*i.resource, &*i.namespace, &*i.name, &*i.subresource),
                (verb, resource, namespace, name, subresource),
                "{target}"
            );
        }
    }

    #[test]
    fn a_proxied_path_keeps_its_escapes_and_slash() {
        assert_eq!(info(Method::GET, "/api/v1/namespaces/a/pods/x:80/proxy/b%20c/").tail, "/b%20c/");
        assert_eq!(info(Method::GET, "/api/v1/nodes/n/proxy").tail, "");
        assert_eq!(info(Method::GET, "/api/v1/nodes/n/proxy/").tail, "/");
    }

    #[test]
    fn queries_decode_and_flags_read_as_upstream() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc+in&watch&x=0&y=False&limit=z"));
        assert_eq!(query.text("labelSelector"), "a=b,c in");
        assert!(query.flag("watch") && !query.flag("x") && !query.flag("y") && !query.flag("none"));
        assert_eq!(query.integer("limit").expect_err("no number").code, 400);
    }

    #[test]
    fn watches_and_streams_are_long() {
        for target in [
            "/api/v1/pods?watch=1",
            "/api/v1/namespaces/a/pods/x/log",
            "/api/v1/namespaces/a/pods/x/exec",
            "/api/v1/nodes/n/proxy/metrics",
        ] {
            assert!(info(Method::GET, target).is_long_running(), "{target}");
        }
        for target in ["/api/v1/pods", "/api/v1/namespaces/a/pods/x/status", "/healthz"] {
            assert!(!info(Method::GET, target).is_long_running(), "{target}");
        }
    }
}
