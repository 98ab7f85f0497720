//! Groups on a plain directory tree, and the parsing of what the kernel shows.

use super::*;

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let dir = std::env::temp_dir().join(format!("cgroup-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for (file, text) in files {
            let file = dir.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Tree(dir)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn mounts_of_a_hybrid_host() {
    let text = "\
25 30 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
26 30 0:23 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
27 30 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
28 30 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
29 30 0:23 / /again/memory rw - cgroup cgroup rw,memory
30 1 254:0 / / rw - ext4 /dev/vda rw";
    let found = parse_mounts(text);
    assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    let controllers: Vec<_> = found.v1.iter().map(|m| m.controllers.join("+")).collect();
    assert_eq!(controllers, ["cpu+cpuacct", "memory", "name=systemd"]);
    assert!(!found.is_v2() && found.has("memory") && !found.has("pids"));
}

/// A plain file keeps the last word written: one controller is enough to see it.
#[test]
fn what_the_root_handed_down_only_for_us_is_taken_back() {
    let tree = Tree::new("back", &[("cgroup.controllers", "cpu memory\n"), ("cgroup.subtree_control", "cpu memory\n")]);
    let cgroups = Cgroups { v1: vec![], v2: Some(tree.0.clone()) };
    assert_eq!(cgroups.handed_down(), ["cpu", "memory"]);
    cgroups.take_back(&["memory".into()]);
    assert_eq!(tree.read("cgroup.subtree_control"), "-cpu");
}

#[test]
fn v2_limits_go_to_the_unified_files() {
    let tree = Tree::new(
        "v2",
        &[
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", "cpu\n"),
            ("pods/p/cgroup.procs", ""),
            ("pods/p/memory.swap.max", "max\n"),
        ],
    );
    let cgroups = Cgroups { v1: vec![], v2: Some(tree.0.clone()) };
    let group = cgroups.group("/../pods/./p/");
    group.create().unwrap();
    let limits = Limits {
        cpu_shares: Some(1024),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory: Some(64 << 20),
        memory_swap: Some(64 << 20),
        pids: Some(-1),
        unified: vec![("memory.oom.group".into(), "1".into())],
        ..Limits::default()
    };
    group.set(&limits).unwrap();
    assert_eq!(tree.read("pods/p/cpu.weight"), "100");
    assert_eq!(tree.read("pods/p/cpu.max"), "50000 100000");
    assert_eq!(tree.read("pods/p/memory.max"), "67108864");
    assert_eq!(tree.read("pods/p/memory.swap.max"), "0", "v2 counts swap alone");
    assert_eq!(tree.read("pods/p/pids.max"), "max");
    assert_eq!(tree.read("pods/p/memory.oom.group"), "1");
    assert_eq!(tree.read("cgroup.subtree_control"), "+pids", "missing controllers are handed down");
    let bad = Limits { unified: vec![("../memory.max".into(), "1".into())], ..Limits::default() };
    assert!(group.set(&bad).is_err());
}

#[test]
fn v2_statistics() {
    let tree = Tree::new(
        "v2stats",
        &[
            ("p/cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("p/memory.current", "1000\n"),
            ("p/memory.max", "max\n"),
            ("p/memory.stat", "anon 300\ninactive_file 400\npgfault 7\npgmajfault 1\n"),
            ("p/memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n"),
            ("p/pids.current", "3\n"),
        ],
    );
    let group = Cgroups { v1: vec![], v2: Some(tree.0.clone()) }.group("p");
    let stats = group.stats();
    assert_eq!((stats.cpu_nanoseconds, stats.memory_working_set, stats.memory_rss), (1_500_000, 600, 300));
    assert_eq!((stats.memory_limit, stats.page_faults, stats.processes), (None, 7, 3));
    assert_eq!(oom_kills(&group.oom_file().unwrap()), 1);
}

#[test]
fn shares_become_weights_that_keep_their_meaning() {
    assert_eq!([0, 2, 1024, 262_144].map(shares_to_weight), [0, 1, 100, 10_000]);
    assert!(shares_to_weight(512) < 100 && shares_to_weight(2048) > 100);
}

#[test]
fn a_real_group_of_this_host_comes_and_goes() {
    let Ok(cgroups) = Cgroups::detect() else { return };
    let group = cgroups.group(&format!("ferrokube-test-{}/child", std::process::id()));
    if group.create().is_err() {
        eprintln!("skipped: cgroups can't be made here (not root?)");
        return;
    }
    group.set(&Limits { cpu_shares: Some(512), memory: Some(32 << 20), ..Limits::default() }).unwrap();
    group.allow_devices(&[DeviceRule::new('c', Some(1), Some(3), "rwm")]).unwrap();
    assert!(group.exists() && group.processes().is_empty());
    let parent = cgroups.group(&format!("ferrokube-test-{}", std::process::id()));
    parent.remove().unwrap();
    assert!(!group.exists());
    parent.remove().unwrap();
}

#[test]
fn the_device_program_is_accepted_by_the_kernel() {
    let Some(v2) = Cgroups::detect().ok().and_then(|c| c.v2) else { return };
    let group = Cgroups { v1: vec![], v2: Some(v2) }.group(&format!("ferrokube-devices-{}", std::process::id()));
    if group.create().is_err() {
        eprintln!("skipped: cgroups can't be made here (not root?)");
        return;
    }
    // A rule without a condition ends the program wherever it stands: privileged containers have that one alone.
    let everything = DeviceRule::everything();
    let some = [
        DeviceRule::new('c', Some(1), Some(3), "rwm"),
        DeviceRule::new('b', None, None, "m"),
        DeviceRule::new('a', Some(10), None, "r"),
    ];
    let [first, second, third] = some.clone();
    let sets = [
        vec![],
        vec![everything.clone()],
        some.to_vec(),
        vec![first, everything, second, third],
        vec![DeviceRule::new('a', None, None, "")],
    ];
    for rules in sets {
        group.allow_devices(&rules).unwrap_or_else(|error| panic!("{rules:?}: {error}"));
    }
    group.remove().unwrap();
}
