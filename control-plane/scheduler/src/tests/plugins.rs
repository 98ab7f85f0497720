//! What the frame owes to plugins, shown with plugins that exist only here: restrictions hold together, reservations
//! are made, written and given back in order, and any resource can wake a pod.

use std::cell::RefCell;
use std::sync::Arc;

use client::Plan;
use serde_json::json;

use super::{cluster, node, pod};
use crate::binding::{Bindings, Next, Refused};
use crate::framework::{Change, Interest, Plugin, Profile, Reservation, Verdict, Wake, What};
use crate::plan;
use crate::plugins::node_unschedulable;
use crate::pod::PodInfo;
use crate::queue::Queue;
use crate::schedule::{Decision, FitError, schedule_by};
use crate::snapshot::Snapshot;

fn only(names: &[&str]) -> Interest {
    let only = Some(names.iter().map(|name| (*name).to_owned()).collect());
    Interest { only, ..Interest::none() }
}

const FIRST: Plugin = Plugin { name: "First", prepare: |_| only(&["a", "b"]), ..Plugin::NOTHING };
const SECOND: Plugin = Plugin { name: "Second", prepare: |_| only(&["b", "c"]), ..Plugin::NOTHING };
const THIRD: Plugin = Plugin { name: "Third", prepare: |_| only(&["a", "c"]), ..Plugin::NOTHING };

fn nodes(cordoned: &str) -> Snapshot {
    let spec = |name: &str| json!({"spec": {"unschedulable": name == cordoned}});
    cluster(&["a", "b", "c"].map(|name| node(name, spec(name))))
}

fn refusal(profile: Profile, snapshot: &Snapshot) -> FitError {
    match schedule_by(profile, &pod("p", json!({})), snapshot, 0, 1) {
        Decision::Bind { node, .. } => panic!("bound to {node}"),
        Decision::Unschedulable(error) => error,
    }
}

#[test]
fn nodes_that_several_plugins_name_are_those_that_all_of_them_name() {
    const PROFILE: Profile = &[&FIRST, &SECOND, &node_unschedulable::PLUGIN];
    for seed in 0..9 {
        let decision = schedule_by(PROFILE, &pod("p", json!({})), &nodes(""), 0, seed);
        assert!(matches!(decision, Decision::Bind { node, .. } if node == "b"));
    }
    let error = refusal(PROFILE, &nodes("b"));
    assert_eq!(
        error.to_string(),
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't satisfy plugin(s) [First Second]."
    );
    assert_eq!(error.plugins, ["NodeUnschedulable", "First", "Second"], "each of them may be what a change helps");
}

#[test]
fn plugins_that_leave_each_other_no_node_refuse_the_pod_together() {
    let error = refusal(&[&FIRST, &SECOND, &THIRD], &nodes(""));
    assert_eq!(
        error.to_string(),
        "0/3 nodes are available: node(s) didn't satisfy plugin(s) [First Second Third] simultaneously."
    );
    assert_eq!(error.plugins, ["First", "Second", "Third"]);
}

thread_local! {
    /// What the plugins below were asked, in order.
    static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn asked() -> Vec<String> {
    ASKED.with(RefCell::take)
}

fn note(what: &str, pod: &PodInfo, node: &str) {
    ASKED.with(|asked| asked.borrow_mut().push(format!("{what} {} {node}", pod.name)));
}

/// A plan that can be told from others.
fn write(pod: &PodInfo) -> Plan {
    plan::unschedulable(pod, "Written", "by a plugin", None, "")
}

const QUIET: Plugin = Plugin {
    name: "Quiet",
    reservation: Some(Reservation {
        reserve: |_, pod, node| {
            note("quiet reserves", pod, node);
            Ok(())
        },
        pre_bind: |_, _, _| Plan::default(),
        unreserve: |_, pod, node| note("quiet gives back", pod, node),
    }),
    ..Plugin::NOTHING
};

/// There is one licence in the cluster. Who has it stands in the snapshot, as the labels of a namespace that is none.
const LICENCE: Plugin = Plugin {
    name: "Licence",
    prepare: |_| Interest::when(true, false),
    filter: Some(|cycle, _, _| match cycle.snapshot.namespace_labels("licence") {
        Some(_) => Verdict::Unschedulable("the licence is taken".into()),
        None => Verdict::Fits,
    }),
    reservation: Some(Reservation {
        reserve: |snapshot, pod, node| {
            note("licence reserves", pod, node);
            if snapshot.namespaces.contains_key("licence") {
                return Err("the licence is taken".into());
            }
            snapshot.namespaces.insert("licence".into(), [("of".to_owned(), pod.uid.clone())].into());
            Ok(())
        },
        pre_bind: |_, pod, node| {
            note("licence writes", pod, node);
            write(pod)
        },
        unreserve: |snapshot, pod, node| {
            note("licence gives back", pod, node);
            if snapshot.namespace_labels("licence").is_some_and(|labels| labels["of"] == pod.uid) {
                snapshot.namespaces.remove("licence");
            }
        },
    }),
    ..Plugin::NOTHING
};

const RESERVING: Profile = &[&QUIET, &LICENCE];

fn run(next: Next) -> Plan {
    match next {
        Next::Run(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn begun(snapshot: &mut Snapshot, bindings: &mut Bindings) -> Arc<PodInfo> {
    let first = pod("first", json!({}));
    assert_eq!(bindings.begin(snapshot, &first, "a").unwrap(), write(&first));
    assert_eq!(asked(), ["quiet reserves first a", "licence reserves first a", "licence writes first a"]);
    assert_eq!(snapshot.place_of("first"), Some("a"), "other decisions count with it");
    first
}

#[test]
fn a_pod_is_reserved_for_then_written_for_then_bound() {
    let (mut snapshot, mut bindings) = (nodes(""), Bindings::new(RESERVING));
    let first = begun(&mut snapshot, &mut bindings);
    assert_eq!(refusal(RESERVING, &snapshot).to_string(), "0/3 nodes are available: 3 the licence is taken.");
    let binding = run(bindings.carried_out(&mut snapshot, "first", true));
    assert_eq!(binding, plan::bind(&first, "a"));
    assert!(matches!(bindings.carried_out(&mut snapshot, "first", true), Next::Nothing));
    bindings.gone(&mut snapshot, "first");
    assert!(asked().is_empty(), "what a bound pod uses is its own");
}

#[test]
fn whatever_fails_is_undone_from_the_last_to_the_first() {
    for failing_at_the_binding in [false, true] {
        let (mut snapshot, mut bindings) = (nodes(""), Bindings::new(RESERVING));
        begun(&mut snapshot, &mut bindings);
        if failing_at_the_binding {
            run(bindings.carried_out(&mut snapshot, "first", true));
        }
        assert!(matches!(bindings.carried_out(&mut snapshot, "first", false), Next::GaveBack));
        assert_eq!(asked(), ["licence gives back first a", "quiet gives back first a"]);
        assert_eq!(snapshot.place_of("first"), None);
        begun(&mut snapshot, &mut bindings);
    }
}

#[test]
fn a_refused_reservation_leaves_no_trace() {
    let (mut snapshot, mut bindings) = (nodes(""), Bindings::new(RESERVING));
    begun(&mut snapshot, &mut bindings);
    let refused = Refused { plugin: "Licence", why: "the licence is taken".into() };
    assert_eq!(bindings.begin(&mut snapshot, &pod("second", json!({})), "b"), Err(refused));
    let order = [
        "quiet reserves second b",
        "licence reserves second b",
        "licence gives back second b",
        "quiet gives back second b",
    ];
    assert_eq!(asked(), order);
    assert_eq!((snapshot.place_of("second"), snapshot.place_of("first")), (None, Some("a")));
    assert_eq!(snapshot.namespace_labels("licence").map(|l| &*l["of"]), Some("first"), "nobody else's is given back");
}

#[test]
fn what_informers_show_first_is_not_undone_by_an_answer_that_comes_late() {
    let (mut snapshot, mut bindings) = (nodes(""), Bindings::new(RESERVING));
    let first = begun(&mut snapshot, &mut bindings);
    run(bindings.carried_out(&mut snapshot, "first", true));
    // The binding was written and its answer was lost.
    bindings.bound(&mut snapshot, "first", "a");
    snapshot.place(first, "a");
    assert!(matches!(bindings.carried_out(&mut snapshot, "first", false), Next::Nothing));
    assert_eq!(snapshot.place_of("first"), Some("a"));
    assert!(asked().is_empty());
}

#[test]
fn a_pod_that_goes_or_is_bound_elsewhere_gives_back() {
    let (mut snapshot, mut bindings) = (nodes(""), Bindings::new(RESERVING));
    begun(&mut snapshot, &mut bindings);
    bindings.bound(&mut snapshot, "first", "b");
    assert_eq!(asked(), ["licence gives back first a", "quiet gives back first a"]);
    begun(&mut snapshot, &mut bindings);
    bindings.gone(&mut snapshot, "first");
    assert_eq!(asked(), ["licence gives back first a", "quiet gives back first a"]);
    assert!(matches!(bindings.carried_out(&mut snapshot, "first", true), Next::Nothing));
}

/// A claim, as far as it matters here: for which pod.
struct Claim(&'static str);

const CLAIMS: Plugin = Plugin {
    name: "Claims",
    wakes: &[Wake::new("persistentvolumeclaims", &[What::Updated], |change, pod| {
        change.object::<Claim>().is_some_and(|claim| claim.0 == pod.uid)
    })],
    ..Plugin::NOTHING
};

#[test]
fn any_resource_wakes_the_pods_whose_refuser_registered_for_it() {
    let refused = || {
        let mut queue = Queue::new(&[&CLAIMS, &QUIET]);
        queue.put(pod("p", json!({})), 0);
        queue.take(0);
        queue.refused("p", vec!["Claims"], 0);
        queue
    };
    for (resource, what, claim, wakes) in [
        ("persistentvolumeclaims", What::Updated, Claim("p"), true),
        ("persistentvolumeclaims", What::Updated, Claim("other"), false),
        ("persistentvolumeclaims", What::Removed, Claim("p"), false),
        ("resourceclaims", What::Updated, Claim("p"), false),
    ] {
        let mut queue = refused();
        queue.changed(&Change::new(resource, what, &claim));
        assert_eq!(queue.take(60_000).is_some(), wakes, "{resource} {what:?} {}", claim.0);
    }
}
