//! Impersonation: the `Impersonate-*` headers let a caller act as somebody else, if that is theirs to do.
//!
//! Two kinds of right exist. `impersonate` on a user, group, service account, uid or extra value gives all that the
//! other may do. The constrained verbs give an identity (`impersonate:<mode>`) for named actions only
//! (`impersonate-on:<mode>:<verb>`). Who has the first kind needs none of the second; of those, the first that suffices
//! decides, and when none does the caller learns what the first one lacked. Pure; the server calls it between authentication and
//! authorisation.

use http::{HeaderMap, HeaderName};
use meta::Status;

use super::service_account::{self, USER_PREFIX};
use super::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, UserInfo};
use crate::authz::node::{GROUP as NODES, PREFIX as NODE_PREFIX};
use crate::authz::{Attributes, Decision, forbidden};
use crate::http::request::decode;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA: &str = "impersonate-extra-";
/// API group of everything that the constrained verbs are about, and of uids and extra values always.
const API_GROUP: &str = "authentication.k8s.io";
/// Extra value of a service account whose token is bound to a pod: the pod's node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Whom the headers ask to be; `None` when they ask for nothing.
pub fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let one = |name: HeaderName| headers.get(name).map(text).unwrap_or_default();
    let mut wanted = UserInfo { name: one(USER), uid: one(UID), ..UserInfo::default() };
    wanted.groups = headers.get_all(GROUP).iter().map(text).collect();
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        wanted.extra.push((decode(key, false).into_owned(), headers.get_all(name).iter().map(text).collect()));
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", shown(&wanted))))
}

/// As Go shows the structure, which is what upstream's message does.
fn shown(user: &UserInfo) -> String {
    let quoted = |texts: &[String]| format!("[]string{{{}}}", meta::text::quoted_list(texts));
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { quoted(&user.groups) };
    let entry = |(key, values): &(String, Vec<String>)| format!("{}:{}", meta::text::quote(key), quoted(values));
    let mut extra: Vec<String> = user.extra.iter().map(entry).collect();
    extra.sort();
    let extra = match extra.is_empty() {
        true => "(nil)".to_owned(),
        false => format!("{{{}}}", extra.join(", ")),
    };
    let uid = meta::text::quote(&user.uid);
    format!("&user.DefaultInfo{{Name:\"\", UID:{uid}, Groups:{groups}, Extra:map[string][]string{extra}}}")
}

/// One right that is needed.
struct Need<'a> {
    group: &'static str,
    resource: &'static str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// How an identity may be taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A service account takes the identity of the node that its pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    /// All that the other may do.
    Whole,
}

const MODES: [Mode; 5] = [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Whole];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Whole => "",
        }
    }

    /// Whether `caller` can ask for `wanted` in this mode at all.
    fn fits(self, caller: &UserInfo, wanted: &UserInfo) -> bool {
        let node = node(&wanted.name);
        let bare = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        match self {
            Mode::AssociatedNode => bare && node.is_some_and(|node| runs_on(caller, node)),
            Mode::ArbitraryNode => bare && node.is_some(),
            Mode::ServiceAccount => bare && account(&wanted.name).is_some(),
            Mode::UserInfo => node.is_none() && account(&wanted.name).is_none(),
            Mode::Whole => true,
        }
    }
}

/// The node of a kubelet's user name.
fn node(user: &str) -> Option<&str> {
    let node = user.strip_prefix(NODE_PREFIX)?;
    meta::names::dns1123_subdomain(node).is_empty().then_some(node)
}

/// Namespace and name of a service account's user name.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    let valid = meta::names::dns1123_label(namespace).is_empty() && meta::names::dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

fn runs_on(caller: &UserInfo, node: &str) -> bool {
    let bound = caller.extra.iter().find(|(key, _)| key == NODE_NAME);
    account(&caller.name).is_some() && bound.is_some_and(|(_, values)| values.len() == 1 && values[0] == node)
}

/// The identity that `request.user` takes for this request, if every right that it needs is given by `decide`.
pub fn impersonate(
    request: &Attributes<'_>,
    wanted: UserInfo,
    decide: impl Fn(&Attributes<'_>) -> Decision,
) -> Result<UserInfo, Status> {
    // Whoever may do all that the other may gets just that: no more groups than asked for.
    if allowed(Mode::Whole, request, &wanted, &decide).is_ok() {
        return Ok(complete(Mode::Whole, wanted));
    }
    let mut first = None;
    for mode in MODES.into_iter().filter(|mode| mode.fits(request.user, &wanted)) {
        match allowed(mode, request, &wanted, &decide) {
            Ok(()) => return Ok(complete(mode, wanted)),
            Err(refused) => first = first.or(Some(refused)),
        }
    }
    Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

fn allowed(
    mode: Mode,
    request: &Attributes<'_>,
    wanted: &UserInfo,
    decide: &impl Fn(&Attributes<'_>) -> Decision,
) -> Result<(), Status> {
    let ask = |attributes: &Attributes<'_>| match decide(attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
    };
    let verb = match mode {
        Mode::Whole => "impersonate".to_owned(),
        _ => {
            let on = format!("impersonate-on:{}:{}", mode.name(), request.verb);
            ask(&Attributes { verb: &on, ..*request })?;
            format!("impersonate:{}", mode.name())
        }
    };
    for need in needs(mode, wanted) {
        let attributes = Attributes {
            user: request.user,
            verb: &verb,
            resource_request: true,
            group: need.group,
            version: "",
            resource: need.resource,
            subresource: need.subresource,
            namespace: need.namespace,
            name: need.name,
            path: "",
            field_selector: "",
            label_selector: "",
        };
        if let Some(why) = unbounded(&need).filter(|_| mode != Mode::Whole) {
            return Err(forbidden(&attributes, why));
        }
        ask(&attributes)?;
    }
    Ok(())
}

/// Why an attribute cannot be had by a constrained right: it would hold its bearer to nothing.
fn unbounded(need: &Need<'_>) -> Option<&'static str> {
    match (need.resource, need.name) {
        ("groups", "") => Some("impersonating the empty string group is not allowed"),
        ("groups", MASTERS) => Some("impersonating the system:masters group is not allowed"),
        ("userextras", "") => Some("impersonating the empty string value in extra is not allowed"),
        ("userextras", _) => {
            let (domain, path) = need.subresource.split_once('/').unwrap_or_default();
            let valid = !path.is_empty() && meta::names::dns1123_subdomain(domain).is_empty();
            (!valid).then_some("impersonating an invalid key in extra is not allowed: must be a domain-prefixed path (such as \"acme.io/foo\")")
        }
        _ => None,
    }
}

fn needs(mode: Mode, wanted: &UserInfo) -> Vec<Need<'_>> {
    let group = if mode == Mode::Whole { "" } else { API_GROUP };
    let need = |resource, name| Need { group, resource, subresource: "", namespace: "", name };
    let identity = match (mode, account(&wanted.name), node(&wanted.name)) {
        // Which node that is follows from the caller: the right is to be whichever.
        (Mode::AssociatedNode, ..) => need("nodes", "*"),
        (Mode::ArbitraryNode, _, Some(node)) => need("nodes", node),
        (_, Some((namespace, name)), _) => Need { namespace, ..need("serviceaccounts", name) },
        _ => need("users", wanted.name.as_str()),
    };
    let mut all = vec![identity];
    if !wanted.uid.is_empty() {
        all.push(Need { group: API_GROUP, ..need("uids", &wanted.uid) });
    }
    all.extend(wanted.groups.iter().map(|name| need("groups", name.as_str())));
    for (key, values) in &wanted.extra {
        let extra = |value| Need { group: API_GROUP, subresource: key, ..need("userextras", value) };
        all.extend(values.iter().map(|value| extra(value.as_str())));
    }
    all
}

/// Adds the groups that go with the name, and whether the identity counts as proven.
fn complete(mode: Mode, mut user: UserInfo) -> UserInfo {
    if let (true, Some((namespace, name))) = (user.groups.is_empty(), account(&user.name)) {
        user.groups = service_account::user(namespace, name, "").groups;
    }
    // The unconstrained verb gives what was asked for and no more.
    if matches!(mode, Mode::AssociatedNode | Mode::ArbitraryNode) {
        user.groups.push(NODES.to_owned());
    }
    let has = |wanted: &str| user.groups.iter().any(|group| group == wanted);
    let proof = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !has(proof) && !has(UNAUTHENTICATED) {
        user.groups.push(proof.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{Query, RequestInfo};

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("a header name"), value.parse().expect("a header value"))
        };
        let mut map = HeaderMap::new();
        for (name, value) in list.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
    }

    /// Lists pods of the namespace `ns` as `caller`, who has `rights`: `verb group resource[/sub] namespace name`.
    fn list_pods(caller: &UserInfo, ask: &[(&str, &str)], rights: &[&str]) -> Result<UserInfo, Status> {
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/ns/pods", &Query::parse(None));
        let wanted = wanted(&headers(ask))?.expect("something is asked for");
        impersonate(&Attributes::of(&info, caller), wanted, |a| {
            assert_eq!(a.user.name, caller.name, "rights are the caller's own");
            let resource = match a.subresource {
                "" => a.resource.to_owned(),
                sub => format!("{}/{sub}", a.resource),
            };
            let right = format!("{} {} {resource} {} {}", a.verb, a.group, a.namespace, a.name);
            match rights.contains(&right.as_str()) {
                true => Decision::Allow(String::new()),
                false => Decision::NoOpinion(String::new()),
            }
        })
    }

    #[test]
    fn every_header_needs_a_right_of_its_own() {
        let ask = [
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Group", "ops"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-acme.com%2Fproject", "x"),
        ];
        let rights = [
            "impersonate  users  jane",
            "impersonate  groups  dev",
            "impersonate  groups  ops",
            "impersonate authentication.k8s.io uids  7",
            "impersonate authentication.k8s.io userextras/acme.com/project  x",
        ];
        let admin = user("admin", &[]);
        let jane = list_pods(&admin, &ask, &rights).expect("all rights are there");
        assert_eq!((&*jane.name, &*jane.uid), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(jane.extra, [("acme.com/project".to_owned(), vec!["x".to_owned()])]);
        for missing in 0..rights.len() {
            let mut some = rights.to_vec();
            some.remove(missing);
            let refused = list_pods(&admin, &ask, &some).expect_err("one right is missing");
            assert_eq!(refused.code, 403, "{}", rights[missing]);
        }
    }

    #[test]
    fn nothing_is_impersonated_without_a_user() {
        assert!(wanted(&headers(&[("Authorization", "Bearer x")])).expect("no headers").is_none());
        for name in ["Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-scopes"] {
            assert_eq!(wanted(&headers(&[(name, "x")])).expect_err("no user").code, 400, "{name}");
        }
        let told = wanted(&headers(&[("Impersonate-Group", "a")])).expect_err("no user").message;
        assert_eq!(
            told,
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"a\"}, Extra:map[string][]string(nil)} without impersonating a user name"
        );
    }

    #[test]
    fn groups_follow_from_the_name() {
        let cases: [(&str, &str, &[&str]); 4] = [
            (
                "system:serviceaccount:ns:app",
                "impersonate  serviceaccounts ns app",
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
            ),
            ("system:anonymous", "impersonate  users  system:anonymous", &["system:unauthenticated"]),
            ("system:node:n1", "impersonate  users  system:node:n1", &["system:authenticated"]),
            ("system:serviceaccount:odd", "impersonate  users  system:serviceaccount:odd", &["system:authenticated"]),
        ];
        for (name, right, groups) in cases {
            let became = list_pods(&user("admin", &[]), &[("Impersonate-User", name)], &[right]).expect(name);
            assert_eq!(became.groups, groups, "{name}");
        }
    }

    #[test]
    fn a_constrained_right_holds_for_the_named_action_only() {
        let jane = [("Impersonate-User", "jane")];
        let identity = "impersonate:user-info authentication.k8s.io users  jane";
        let list = "impersonate-on:user-info:list  pods ns ";
        let caller = user("bot", &[]);
        assert!(list_pods(&caller, &jane, &[identity, list]).is_ok());
        for half in [identity, list, "impersonate-on:user-info:get  pods ns "] {
            assert_eq!(list_pods(&caller, &jane, &[half]).expect_err("half of the rights").code, 403);
        }
        let masters = [("Impersonate-User", "jane"), ("Impersonate-Group", "system:masters")];
        let group = "impersonate:user-info authentication.k8s.io groups  system:masters";
        let refused = list_pods(&caller, &masters, &[identity, group, list]).expect_err("no bound on masters");
        assert!(refused.message.ends_with("impersonating the system:masters group is not allowed"), "{refused}");
    }

    #[test]
    fn a_pod_becomes_the_node_that_it_runs_on_and_no_other() {
        let mut agent = user("system:serviceaccount:kube-system:agent", &[]);
        agent.extra.push((NODE_NAME.to_owned(), vec!["n1".to_owned()]));
        let rights = [
            "impersonate:associated-node authentication.k8s.io nodes  *",
            "impersonate-on:associated-node:list  pods ns ",
        ];
        let node = list_pods(&agent, &[("Impersonate-User", "system:node:n1")], &rights).expect("its own node");
        assert_eq!(node.groups, ["system:nodes", "system:authenticated"]);
        assert!(list_pods(&agent, &[("Impersonate-User", "system:node:n2")], &rights).is_err());
    }

    #[test]
    fn a_refusal_says_which_right_the_first_way_lacks() {
        let bob = user("bob", &[]);
        let refuse =
            |rights: &[&str]| list_pods(&bob, &[("Impersonate-User", "jane")], rights).expect_err("rights lack");
        assert_eq!(
            refuse(&[]).message,
            "pods is forbidden: User \"bob\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" in the namespace \"ns\""
        );
        assert_eq!(
            refuse(&["impersonate-on:user-info:list  pods ns "]).message,
            "users.authentication.k8s.io \"jane\" is forbidden: User \"bob\" cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope"
        );
    }
}
