//! Manifests that several suites apply. Called by the end-to-end tests and the chaos campaign.

/// A Deployment `many` of idle pods, none at first: tests scale it.
pub const MANY: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 0
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: docker.io/library/busybox:test, command: [sleep, "100000"]}]
"#;
