//! Networks by the CNI specification: lists of built-in and external plugins.

use std::os::unix::fs::PermissionsExt;

use cni::list::{Attachment, Invoker, NetworkList};
use cni::{PortMapping, Protocol};
use linux::netns::NetNs;
use linux::nft::{Family, Nft};
use serde_json::json;

use crate::world::{World, ask_tcp, path_of, port, serve_tcp};

fn list(dir: &std::path::Path, more: &[serde_json::Value]) -> NetworkList {
    let mut plugins = vec![
        json!({
            "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "dataDir": dir.join("ipam")},
        }),
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "loopback"}),
    ];
    plugins.extend_from_slice(more);
    let list = json!({"cniVersion": "1.1.0", "name": "test", "plugins": plugins});
    NetworkList::parse(&list.to_string()).unwrap()
}

fn attachment<'a>(id: &'a str, netns: Option<&'a std::path::Path>, ports: &'a [PortMapping]) -> Attachment<'a> {
    Attachment { container_id: id, netns, ifname: "eth0", args: "K8S_POD_NAME=web", ports }
}

#[test]
fn a_list_of_built_in_plugins_adds_checks_collects_and_removes() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = dir.path().join("cache");
    life_of_a_network(&dir, &Invoker { plugin_dirs: Vec::new(), cache_dir, builtin: true });
}

#[test]
fn the_same_plugins_as_programs_do_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // Beside the tests cargo builds the example that is our plugins.
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/plugin");
    for name in ["bridge", "host-local", "portmap", "loopback"] {
        std::os::unix::fs::symlink(&program, dir.path().join(name)).unwrap();
    }
    let cache_dir = dir.path().join("cache");
    life_of_a_network(&dir, &Invoker { plugin_dirs: vec![dir.path().to_owned()], cache_dir, builtin: false });
}

fn life_of_a_network(dir: &tempfile::TempDir, invoker: &Invoker) {
    let world = World::new();
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let (path_a, path_b) = (path_of(&a), path_of(&b));
    let list = list(dir.path(), &[]);
    let ports = [port(8080, 80, Protocol::Tcp)];
    world.on_host(|| {
        invoker.status(&list).unwrap();
        let result = invoker.add(&list, &attachment("a", Some(&path_a), &ports)).unwrap();
        assert_eq!((result.ips[0].address.as_str(), result.interfaces.len()), ("10.88.0.2/24", 3));
        invoker.add(&list, &attachment("b", Some(&path_b), &[])).unwrap();
        invoker.check(&list, &attachment("a", Some(&path_a), &[])).unwrap();
    });
    serve_tcp(&a, 80);
    assert_eq!(ask_tcp(&b, "10.88.0.2:80").unwrap(), "10.88.0.3");
    assert_eq!(ask_tcp(&b, "10.88.0.1:8080").unwrap(), "10.88.0.3");
    world.on_host(|| {
        invoker.gc(&list, &[("a", "eth0")]).unwrap();
        assert!(invoker.check(&list, &attachment("b", Some(&path_b), &[])).is_err());
        invoker.check(&list, &attachment("a", Some(&path_a), &[])).unwrap();
        invoker.del(&list, &attachment("a", None, &[])).unwrap();
        invoker.del(&list, &attachment("a", None, &[])).unwrap();
    });
    assert!(std::fs::read_dir(dir.path().join("ipam/test")).unwrap().next().is_none(), "no address leaks");
    let left = world.on_host(|| Nft::open().unwrap().elements(Family::Ip, "cni-test-ports", "host-ports").unwrap());
    assert_eq!(left, [], "no port leaks");
}

/// As upstream's manifest has it, on a host where flannel has written its file.
#[test]
fn pods_are_in_the_subnet_that_flannel_has_for_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("subnet.env"), dir.path().join("flannel"));
    let invoker = Invoker { plugin_dirs: Vec::new(), cache_dir: dir.path().join("cache"), builtin: true };
    let list = json!({"cniVersion": "1.1.0", "name": "cbr0", "plugins": [
        {"type": "flannel", "subnetFile": file, "dataDir": data, "ipam": {"dataDir": dir.path().join("ipam")},
            "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    let list = NetworkList::parse(&list.to_string()).unwrap();
    let world = World::new();
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let (path_a, path_b) = (path_of(&a), path_of(&b));
    world.on_host(|| {
        let said = invoker.status(&list).unwrap_err().to_string();
        assert!(said.contains("subnet.env, which flannel writes once it runs here"), "{said}");
        let told = "FLANNEL_NETWORK=10.88.0.0/16\nFLANNEL_SUBNET=10.88.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        std::fs::write(&file, told).unwrap();
        invoker.status(&list).unwrap();
        let result = invoker.add(&list, &attachment("a", Some(&path_a), &[])).unwrap();
        assert_eq!(result.ips[0].address, "10.88.7.2/24");
        assert_eq!(result.interfaces[0].mtu, 1450);
        invoker.add(&list, &attachment("b", Some(&path_b), &[])).unwrap();
        invoker.check(&list, &attachment("a", Some(&path_a), &[])).unwrap();
    });
    serve_tcp(&a, 80);
    assert_eq!(ask_tcp(&b, "10.88.7.2:80").unwrap(), "10.88.7.3");
    let network = linux::netlink::Rtnl::open_in(&b).unwrap().routes().unwrap();
    assert!(network.iter().any(|route| route.dst.to_string() == "10.88.0.0/16"), "{network:?}");
    world.on_host(|| {
        // The host has no subnet any more, then another one: what is taken down is what was made.
        std::fs::remove_file(&file).unwrap();
        invoker.del(&list, &attachment("a", None, &[])).unwrap();
        invoker.del(&list, &attachment("a", None, &[])).unwrap();
        std::fs::write(&file, "FLANNEL_SUBNET=10.88.9.1/24\nFLANNEL_MTU=1450\n").unwrap();
        invoker.gc(&list, &[]).unwrap();
    });
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "no record is left");
    assert!(std::fs::read_dir(dir.path().join("ipam/cbr0")).unwrap().next().is_none(), "no address leaks");
}

#[test]
fn external_plugins_are_called_by_the_protocol_and_a_failure_undoes_the_rest() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let a = NetNs::create().unwrap();
    let path = path_of(&a);
    let plugin = |name: &str, script: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let log = dir.path().join("log");
    let noted =
        format!("echo $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS >> {}; cat > /dev/null", log.display());
    plugin("note", &noted);
    plugin(
        "refuse",
        r#"cat > /dev/null; echo '{"cniVersion":"1.1.0","code":42,"msg":"no","details":"not today"}'; exit 1"#,
    );
    let invoker =
        Invoker { plugin_dirs: vec![dir.path().to_owned()], cache_dir: dir.path().join("cache"), builtin: true };
    world.on_host(|| {
        let noting = list(dir.path(), &[json!({"type": "note"})]);
        invoker.add(&noting, &attachment("a", Some(&path), &[])).unwrap();
        invoker.del(&noting, &attachment("a", Some(&path), &[])).unwrap();
        let refusing = list(dir.path(), &[json!({"type": "note"}), json!({"type": "refuse"})]);
        let e = invoker.add(&refusing, &attachment("b", Some(&path), &[])).unwrap_err();
        assert_eq!((e.to_string().as_str(), e.code()), ("CNI plugin refuse: no: not today", 42));
        let missing = list(dir.path(), &[json!({"type": "nowhere"})]);
        let e = invoker.add(&missing, &attachment("c", Some(&path), &[])).unwrap_err();
        assert!(e.to_string().starts_with("CNI plugin \"nowhere\" is neither built in nor in "), "{e}");
    });
    assert!(std::fs::read_dir(dir.path().join("ipam/test")).unwrap().next().is_none(), "a failed add leaves nothing");
    let log = std::fs::read_to_string(log).unwrap();
    let line = |command: &str, id: &str| format!("{command} {id} eth0 K8S_POD_NAME=web\n");
    assert_eq!(log, [line("ADD", "a"), line("DEL", "a"), line("ADD", "b"), line("DEL", "b")].concat());
}

/// Also a program of a name that we have ourselves: who installs one wants it called.
#[test]
fn a_container_is_taken_out_as_it_was_added_whatever_is_configured_by_then() {
    let (world, dir, a) = (World::new(), tempfile::tempdir().unwrap(), NetNs::create().unwrap());
    let (path, log, program) = (path_of(&a), dir.path().join("log"), dir.path().join("bridge"));
    let script = format!(
        "#!/bin/sh\ncat > /dev/null\necho $CNI_COMMAND $CNI_CONTAINERID >> {}\necho '{{\"cniVersion\": \"1.1.0\"}}'\n",
        log.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let invoker =
        Invoker { plugin_dirs: vec![dir.path().to_owned()], cache_dir: dir.path().join("cache"), builtin: true };
    let theirs = r#"{"cniVersion": "1.1.0", "name": "theirs", "plugins": [{"type": "bridge"}]}"#;
    let list = NetworkList::parse(theirs).unwrap();
    world.on_host(|| {
        for id in ["a", "b", "c"] {
            invoker.add(&list, &attachment(id, Some(&path), &[])).unwrap();
        }
        // Nobody has the configuration any more.
        let before = invoker.network_of("a", "eth0").expect("remembered");
        assert_eq!((&before, invoker.network_of("d", "eth0")), (&list, None));
        invoker.del(&before, &attachment("a", None, &[])).unwrap();
        assert_eq!(invoker.network_of("a", "eth0"), None, "it is out");
        invoker.keep_only(None, &[("c", "eth0")]).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "ADD a\nADD b\nADD c\nDEL a\nDEL b\n");
        // What an older version wrote down is taken out by the network of its name; what is left of one whose program is
        // gone is told, and keeps nothing else.
        let old = json!({"containerId": "old", "ifName": "eth0", "networkName": "theirs", "result": {}});
        let lost = json!({"containerId": "lost", "ifName": "eth0", "networkName": "n", "result": {},
            "config": {"cniVersion": "1.0.0", "name": "n", "type": "nowhere"}});
        for (file, record) in [("a-lost", lost), ("z-old", old)] {
            std::fs::write(dir.path().join("cache/results").join(file), record.to_string()).unwrap();
        }
        invoker.gc(&list, &[("c", "eth0")]).unwrap_err();
        assert!(std::fs::read_to_string(&log).unwrap().contains("DEL old\n"));
    });
}
