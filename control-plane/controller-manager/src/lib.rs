//! kube-controller-manager: one file a controller, each a pure reconcile function.
