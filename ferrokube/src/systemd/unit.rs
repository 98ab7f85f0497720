//! The text of a unit, and what systemd's own texts say of one: systemd.service(5), systemd.unit(5). Pure.

use std::fmt;
use std::path::Path;

use crate::config::Host;

/// What the environment file holds until a person writes into it.
pub const ENVIRONMENT: &str = "\
# Environment of the cluster's service: read at its next start.
#HTTPS_PROXY=http://proxy.example:3128
#NO_PROXY=10.0.0.0/8,.cluster.local,.svc
#FERROKUBE_LOG=info
";

/// The unit of a cluster.
pub struct Unit<'a> {
    pub host: &'a Host,
    pub program: &'a Path,
    pub environment: &'a Path,
    /// How long the daemon may take to stop, with its pods.
    pub stop_seconds: u64,
}

impl fmt::Display for Unit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unit { host, program, environment, stop_seconds } = self;
        let (program, data) = (quoted(&program.to_string_lossy(), ""), quoted(&host.data_dir.to_string_lossy(), "$"));
        let environment = environment.display();
        let name = &host.cluster.name;
        write!(
            f,
            "\
# Written by `ferrokube install`; `ferrokube uninstall` removes it. Changes of your own: systemctl edit.
[Unit]
Description=Kubernetes cluster {name}
Wants=network-online.target
After=network-online.target firewalld.service ufw.service nftables.service docker.service
# Whatever is wrong may be mended: it is tried again for ever.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} server --name {name} --data-dir {data}
EnvironmentFile=-{environment}
Restart=on-failure
RestartSec=2
# A start tells by itself when it can't go on.
TimeoutStartSec=infinity
# Pods get their grace within it.
TimeoutStopSec={stop_seconds}
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"
        )
    }
}

/// A word of a command line. systemd takes quotes, backslashes and per cents for its own, in words after the first
/// dollars too; what ends a line would begin a setting.
fn quoted(word: &str, doubled: &str) -> String {
    let mut out = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c == '%' || doubled.contains(c) => out.extend([c, c]),
            c if c.is_ascii_control() => out += &format!("\\x{:02x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Whether systemd runs a program of this path: it refuses what a shell would have to quote, and a unit is UTF-8.
pub fn is_runnable(program: &Path) -> bool {
    let refused = |c: char| c.is_ascii_control() || matches!(c, '"' | '\\' | '\'');
    program.to_str().is_some_and(|text| !text.contains(refused))
}

/// The service that a process is in, by what /proc/PID/cgroup says: of the v2 tree, or of v1's `name=systemd`.
pub fn of_groups(text: &str) -> Option<String> {
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        (controllers.is_empty() || controllers == "name=systemd").then(|| path.to_owned())
    };
    let last = |path: String| path.rsplit('/').next().filter(|name| name.ends_with(".service")).map(str::to_owned);
    text.lines().filter_map(group).find_map(last)
}

/// Whether a unit runs, or is about to, by what `systemctl show` says of its state and its job.
pub fn is_active(shown: &str) -> bool {
    let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    match value("ActiveState").unwrap_or_default() {
        "active" | "activating" | "reloading" => true,
        // Its job waits for what comes before it: the network, a firewall.
        "inactive" | "failed" => !matches!(value("Job").unwrap_or_default(), "" | "0"),
        _ => false,
    }
}

/// Whether `systemctl list-jobs` has a job that will start the unit again.
pub fn is_restarted(unit: &str, jobs: &str) -> bool {
    jobs.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(unit) && matches!(words.next(), Some("restart" | "try-restart"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::host;

    #[test]
    fn a_unit_starts_the_server_of_its_cluster() {
        let host = host("/var/lib/with blank/100%".as_ref());
        let unit = Unit {
            host: &host,
            program: "/opt/$x/ferrokube".as_ref(),
            environment: "/etc/e".as_ref(),
            stop_seconds: 60,
        };
        let text = unit.to_string();
        let line = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().to_owned();
        // Asked of systemd 252: it looks for a program of two dollars where two are written.
        let start = r#""/opt/$x/ferrokube" server --name test --data-dir "/var/lib/with blank/100%%""#;
        assert_eq!(line("ExecStart="), start);
        assert_eq!(line("EnvironmentFile="), "-/etc/e", "a file that is gone is no reason not to start");
        assert_eq!(line("Type="), "notify");
        assert_eq!(line("Restart="), "on-failure", "`ferrokube down` ends it for good");
    }

    /// What followed a line's end in the data directory's name was a setting of the unit: a command run as root.
    #[test]
    fn no_name_of_a_directory_begins_a_setting() {
        let host = host("/var/lib/a\nExecStartPre=/bin/sh $x\\\"\t".as_ref());
        let unit =
            Unit { host: &host, program: "/opt/ferrokube".as_ref(), environment: "/etc/e".as_ref(), stop_seconds: 60 };
        let text = unit.to_string();
        assert!(!text.lines().any(|line| line.starts_with("ExecStartPre")), "{text}");
        assert!(text.contains(r#"--data-dir "/var/lib/a\x0aExecStartPre=/bin/sh $$x\\\"\x09""#), "{text}");
    }

    #[test]
    fn a_program_that_systemd_would_not_run_is_known() {
        for good in ["/usr/local/bin/ferrokube", "/opt/with blank/100%/$x/ferrokube", "/opt/ü/ferrokube"] {
            assert!(is_runnable(good.as_ref()), "{good}");
        }
        let foreign: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"/opt/\xff/ferrokube");
        for bad in ["/opt/a\"b/x".as_ref(), "/opt/it's/x".as_ref(), "/opt/a\\b".as_ref(), "/opt/a\nb".as_ref(), foreign]
        {
            assert!(!is_runnable(Path::new(bad)), "{bad:?}");
        }
    }

    #[test]
    fn the_environment_file_sets_nothing_by_itself() {
        assert!(ENVIRONMENT.lines().all(|line| line.starts_with('#')));
    }

    #[test]
    fn the_unit_of_a_process_is_the_last_of_its_path() {
        assert_eq!(of_groups("0::/system.slice/ferrokube.service\n").as_deref(), Some("ferrokube.service"));
        let hybrid = "12:pids:/system.slice/x.service\n1:name=systemd:/system.slice/y.service\n0::/init.scope\n";
        assert_eq!(of_groups(hybrid).as_deref(), Some("y.service"));
        assert_eq!(of_groups("0::/user.slice/user-1000.slice/session-3.scope\n"), None);
        assert_eq!(of_groups("0::/system.slice/x.service/inner\n"), None, "not its main process");
    }

    /// `up` said that the service had ended, and stopped it, while systemd still waited for the network.
    #[test]
    fn a_service_that_waits_for_the_network_has_not_ended() {
        for active in ["ActiveState=active\n", "Job=7\nActiveState=inactive\n", "ActiveState=failed\nJob=8\n"] {
            assert!(is_active(active), "{active}");
        }
        for ended in ["", "ActiveState=inactive\n", "Job=\nActiveState=failed\n", "ActiveState=deactivating\nJob=7\n"] {
            assert!(!is_active(ended), "{ended}");
        }
    }

    #[test]
    fn a_stop_that_a_start_follows_is_a_restart() {
        let jobs = "1234 ferrokube.service restart running\n1235 other.service stop waiting\n";
        assert!(is_restarted("ferrokube.service", jobs));
        assert!(!is_restarted("other.service", jobs) && !is_restarted("kube.service", jobs));
        assert!(!is_restarted("ferrokube.service", "7 ferrokube.service stop running\n"));
    }
}
