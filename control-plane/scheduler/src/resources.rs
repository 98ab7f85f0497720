//! Amounts of what pods ask for and nodes have: CPU in millicores, memory and ephemeral storage in bytes, pods, and
//! extended resources by name. Called wherever a request meets an allocatable.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What upstream counts for a container that asks for nothing, so that scoring still sees it.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by kind. Extended resources are few: a sorted vector beats a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
    pub extended: Vec<(String, i64)>,
}

impl Resources {
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Resources {
        let mut resources = Resources::default();
        for (name, quantity) in list.into_iter().flatten() {
            match name.as_str() {
                "cpu" => resources.milli_cpu = milli(quantity),
                "memory" => resources.memory = whole(quantity),
                "ephemeral-storage" => resources.ephemeral_storage = whole(quantity),
                "pods" => resources.pods = whole(quantity),
                _ => resources.extended.push((name.clone(), whole(quantity))),
            }
        }
        resources
    }

    pub fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(n, _)| n == name).map_or(0, |(_, v)| *v)
    }

    pub fn add(&mut self, other: &Resources) {
        self.combine(other, |a, b| a + b);
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, |a, b| a - b);
        self.extended.retain(|(_, v)| *v != 0);
    }

    /// The larger of each amount.
    pub fn raise(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = f(self.pods, other.pods);
        for (name, value) in &other.extended {
            match self.extended.iter_mut().find(|(n, _)| n == name) {
                Some((_, mine)) => *mine = f(*mine, *value),
                None => self.extended.push((name.clone(), f(0, *value))),
            }
        }
    }

    /// The same with upstream's stand-ins for what a container didn't ask for.
    pub fn or_default(mut self) -> Resources {
        if self.milli_cpu == 0 {
            self.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if self.memory == 0 {
            self.memory = DEFAULT_MEMORY;
        }
        self
    }
}

fn parse(quantity: &Quantity) -> meta::Quantity {
    quantity.0.parse().unwrap_or_default()
}

/// Thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    parse(quantity).milli()
}

/// Whole units, rounded up.
pub fn whole(quantity: &Quantity) -> i64 {
    parse(quantity).value()
}
