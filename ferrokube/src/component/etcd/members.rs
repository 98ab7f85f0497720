//! What flags say of a cluster's members, which must be one member: this one. Pure. Caller: `ferrokube etcd`.

/// See the module's head.
#[derive(Debug, clap::Args)]
pub struct Members {
    /// The cluster's members: this one and no other
    #[arg(long, value_delimiter = ',', value_name = "NAME=URL")]
    initial_cluster: Vec<String>,
    /// new, or existing for one whose data is there
    #[arg(long, default_value = "new", value_name = "STATE")]
    initial_cluster_state: String,
    /// URLs of this member to tell others
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    initial_advertise_peer_urls: Vec<String>,
}

impl Members {
    /// This member's URLs for others; none when nothing is said. `holds_data`: the data directory was made already.
    pub fn peer_urls(self, name: &str, holds_data: bool) -> Result<Option<Vec<String>>, String> {
        let mut urls = Vec::new();
        for member in self.initial_cluster.iter().filter(|member| !member.is_empty()) {
            let (who, url) = member
                .split_once('=')
                .ok_or_else(|| format!("--initial-cluster {member}: write it like {name}=http://127.0.0.1:2380"))?;
            if who != name {
                return Err(format!(
                    "--initial-cluster names {who}, and --name is {name}: this etcd is a cluster of one, itself. Leave \
                     others out, or run upstream's etcd"
                ));
            }
            urls.push(url.to_owned());
        }
        match self.initial_cluster_state.as_str() {
            "new" => {}
            "existing" if holds_data => {}
            "existing" => {
                return Err(
                    "--initial-cluster-state existing: there is no data in --data-dir to go on with, and this \
                            etcd is a cluster of one that joins no other"
                        .to_owned(),
                );
            }
            other => return Err(format!("--initial-cluster-state {other}: give new or existing")),
        }
        let said = if self.initial_advertise_peer_urls.is_empty() { urls } else { self.initial_advertise_peer_urls };
        Ok(Some(said).filter(|said| !said.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(host: &[&str], state: &str) -> Members {
        Members {
            initial_cluster: host.iter().map(|s| (*s).to_owned()).collect(),
            initial_cluster_state: state.to_owned(),
            initial_advertise_peer_urls: Vec::new(),
        }
    }

    #[test]
    fn a_cluster_of_one_is_taken_and_every_other_member_refused_by_name() {
        let urls = |host: &[&str]| members(host, "new").peer_urls("a", false);
        assert_eq!(urls(&[]), Ok(None));
        assert_eq!(urls(&["a=http://h:1"]), Ok(Some(vec!["http://h:1".to_owned()])));
        assert_eq!(urls(&["a=http://h:1", "a=http://i:1"]).map(|urls| urls.map(|urls| urls.len())), Ok(Some(2)));
        let said = urls(&["a=http://h:1", "b=http://i:1"]).expect_err("two members");
        assert!(said.starts_with("--initial-cluster names b, and --name is a:"), "{said}");
        assert!(urls(&["http://h:1"]).expect_err("no name").contains("write it like a="));
    }

    #[test]
    fn an_existing_cluster_is_the_one_whose_data_is_there() {
        assert!(members(&[], "existing").peer_urls("a", true).is_ok());
        let said = members(&[], "existing").peer_urls("a", false).expect_err("nothing to go on with");
        assert!(said.starts_with("--initial-cluster-state existing: there is no data in --data-dir"), "{said}");
        assert!(members(&[], "old").peer_urls("a", true).is_err());
    }
}
