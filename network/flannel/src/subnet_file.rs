//! `subnet.env`: what this host has, for whoever sets up pods here, CNI's plugin `flannel` first of all; and what it had,
//! for us when we start again. The text is pure; reading and writing is I/O.
//!
//! ```text
//! FLANNEL_NETWORK=10.5.0.0/16
//! FLANNEL_SUBNET=10.5.34.1/24           the first address of the subnet, for a bridge
//! FLANNEL_IPV6_NETWORK=fd00:5::/48      where there is IPv6
//! FLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64
//! FLANNEL_MTU=1450
//! FLANNEL_IPMASQ=true
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use meta::Prefix;

use crate::config::NetConf;
use crate::lease::Subnets;

/// More than the longest that anybody writes.
const MAX_BYTES: u64 = 16 << 10;

/// What stands in it.
pub fn text(conf: &NetConf, subnets: &Subnets, mtu: u32, ip_masq: bool) -> String {
    let mut lines = Vec::new();
    let rows = [("FLANNEL", conf.v4, subnets.v4), ("FLANNEL_IPV6", conf.v6, subnets.v6)];
    for (name, range, subnet) in rows {
        if let Some((range, subnet)) = range.zip(subnet) {
            let first = Prefix { addr: subnet.nth(1).unwrap_or(subnet.addr), len: subnet.len };
            lines.push(format!("{name}_NETWORK={}", range.network));
            lines.push(format!("{name}_SUBNET={first}"));
        }
    }
    lines.push(format!("FLANNEL_MTU={mtu}"));
    lines.push(format!("FLANNEL_IPMASQ={ip_masq}"));
    lines.join("\n") + "\n"
}

/// The subnets in such a text; none where it says nothing that can be read.
pub fn subnets(text: &str) -> Option<Subnets> {
    let of = |name: &str, v6: bool| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
        let subnet: Prefix = value.trim_matches('"').parse().ok()?;
        (subnet.is_ipv6() == v6).then(|| subnet.network())
    };
    let found = Subnets { v4: of("FLANNEL_SUBNET", false), v6: of("FLANNEL_IPV6_SUBNET", true) };
    (found != Subnets::default()).then_some(found)
}

/// What the host had when the file was written.
pub fn read(path: &Path) -> Option<Subnets> {
    let mut content = String::new();
    fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut content).ok()?;
    subnets(&content)
}

/// Readers see the old file or the new one, whole.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    write_with(path, text, 0o644)
}

/// The same of any file, for whom its mode says.
pub fn write_with(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let beside = parent.join(format!(".{}.new", name.to_string_lossy()));
    // What a killed process left is not written through: it may be a link.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> NetConf {
        NetConf::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn it_reads_as_upstreams_and_is_read_back() {
        let mut mine = Subnets { v4: Some("10.5.34.0/24".parse().unwrap()), v6: None };
        let written = text(&conf(r#"{"Network": "10.5.0.0/16"}"#), &mine, 1450, true);
        let expected =
            "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        assert_eq!(written, expected);
        assert_eq!(subnets(&written), Some(mine));
        mine.v6 = Some("fd00:5:0:22::/64".parse().unwrap());
        let dual = conf(r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48"}"#);
        let written = text(&dual, &mine, 1430, false);
        assert!(
            written.contains("FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\n"),
            "{written}"
        );
        assert_eq!(subnets(&written), Some(mine));
        for nothing in ["", "FLANNEL_SUBNET=", "FLANNEL_SUBNET=fd00::1/64", "FLANNEL_NETWORK=10.5.0.0/16"] {
            assert_eq!(subnets(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn it_is_replaced_whole_and_never_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("run/subnet.env"), dir.path().join("other"));
        write(&path, "FLANNEL_SUBNET=10.5.34.1/24\n").unwrap();
        fs::write(&other, "untouched").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("run/.subnet.env.new")).unwrap();
        write(&path, "FLANNEL_SUBNET=10.5.35.1/24\n").unwrap();
        assert_eq!(read(&path).unwrap().to_string(), "10.5.35.0/24");
        assert_eq!(fs::read_to_string(other).unwrap(), "untouched");
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 1);
    }
}
