//! kube-scheduler: the framework, one file a plugin, queue and preemption.
