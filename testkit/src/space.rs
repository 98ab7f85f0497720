//! A namespace of a test's own: whatever it makes there goes when the value is dropped, also after a failure.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::{Cluster, Output};

/// See the module's head.
pub struct Space<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Cluster {
    /// Makes a namespace and waits until pods can be made in it.
    pub fn space(&self, name: &str) -> Result<Space<'_>> {
        self.kubectl(&["create", "namespace", name])?;
        let space = Space { cluster: self, name: name.to_owned() };
        space.wait_for("serviceaccount/default", Duration::from_secs(10), |_| true)?;
        Ok(space)
    }
}

impl Space<'_> {
    fn scoped<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        [&["-n", self.name.as_str()], args].concat()
    }

    /// kubectl in this namespace, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.cluster.kubectl_command(&self.scoped(args))
    }

    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<Output> {
        self.cluster.kubectl_with(&self.scoped(args), input)
    }

    /// Standard output of a kubectl that must succeed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "")?.ok()
    }

    /// Standard error of a kubectl that must fail.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "")?.fails()
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifest)?.ok()
    }

    /// One value of an object: `path("pod/web", "{.spec.nodeName}")`.
    pub fn path(&self, what: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={path}")])
    }

    /// An object as JSON.
    pub fn get(&self, what: &str) -> Result<Value> {
        self.cluster.get(&format!("-n {} {what}", self.name))
    }

    pub fn wait_for(&self, what: &str, patience: Duration, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        self.cluster.wait_for(&format!("-n {} {what}", self.name), patience, holds)
    }

    /// Waits for a pod to be Ready; on failure tells its status and events.
    pub fn ready(&self, pod: &str) -> Result<Value> {
        self.cluster.ready_in(&self.name, pod)
    }

    /// A busybox pod that runs this shell text and ends at once when told to.
    pub fn shell_pod(&self, name: &str, script: &str) -> Result<Value> {
        let image = format!("--image={}", crate::image::BUSYBOX);
        self.kubectl(&["run", name, &image, "--", "sh", "-c", &format!("trap 'exit 0' TERM\n{script}")])?;
        self.ready(name)
    }
}

/// Keeps a shell alive that still hears its trap.
pub const STAY: &str = "while :; do sleep 0.2; done";

impl Drop for Space<'_> {
    fn drop(&mut self) {
        let _ = self.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        let _ = self.kubectl(&["delete", "pods", "--all", "--now", "--wait=false"]);
    }
}
