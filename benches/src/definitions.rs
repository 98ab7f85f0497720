//! CustomResourceDefinitions of the number, size and shape that a cluster full of operators has: 816 of 90 MB in all, a
//! few of them very large, most with several versions, schemas a dozen levels deep with prose, patterns, enumerations,
//! defaults and lists that are maps. Pure: the same number always gives the same definition.

use serde_json::{Map, Value, json};

/// How many.
pub const DEFINITIONS: usize = 816;
/// Operators bring some kinds each.
const KINDS_A_GROUP: usize = 8;
/// Bytes of each of eight definitions; 110 KB on average.
const SIZES: [usize; 8] = [12_000, 25_000, 40_000, 60_000, 90_000, 130_000, 193_000, 330_000];
/// Bytes of a node beside its prose, on average.
const OVERHEAD: usize = 110;
/// Levels below the root.
const DEPTH: usize = 10;

pub fn group(i: usize) -> String {
    format!("operator-{:03}.bench.example.com", i / KINDS_A_GROUP)
}

/// The i-th definition.
pub fn definition(i: usize) -> Value {
    let versions = i % 3 + 1;
    let (plural, kind, group) = (format!("widgets{i:03}s"), format!("Widget{i:03}"), group(i));
    let mut maker = Maker { state: i as u64 + 1, room: 0 };
    let names = ["v1", "v1beta1", "v1alpha1"].into_iter().take(versions).enumerate();
    let all = names.map(|(version, name)| {
        maker.room = SIZES[i % SIZES.len()] / versions;
        json!({
            "name": name, "served": true, "storage": version == 0,
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
            "schema": {"openAPIV3Schema": maker.root()},
        })
    });
    let all: Vec<Value> = all.collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "versions": all,
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
        },
    })
}

struct Maker {
    state: u64,
    /// Bytes left for the version.
    room: usize,
}

impl Maker {
    /// A number below `most`: splitmix64, which needs no crate and is the same everywhere.
    fn pick(&mut self, most: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % most as u64) as usize
    }

    fn root(&mut self) -> Value {
        let mut properties = Map::new();
        while self.room > 0 {
            let name = format!("section{:03}", properties.len());
            properties.insert(name, self.node(DEPTH));
        }
        let spec = json!({"type": "object", "description": self.prose(), "properties": properties});
        let condition = json!({"type": "object", "required": ["type"], "properties": {
            "type": {"type": "string"}, "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        }});
        let conditions = json!({"type": "array", "items": condition,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]});
        json!({"type": "object", "description": self.prose(), "required": ["spec"], "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": spec, "status": {"type": "object", "properties": {"conditions": conditions}},
        }})
    }

    fn prose(&mut self) -> String {
        const WORDS: [&str; 12] = [
            "controls",
            "the",
            "number",
            "of",
            "replicas",
            "that",
            "are",
            "wanted",
            "for",
            "this",
            "component",
            "when",
        ];
        let text: Vec<&str> = (0..12 + self.pick(20)).map(|_| WORDS[self.pick(WORDS.len())]).collect();
        text.join(" ")
    }

    fn node(&mut self, depth: usize) -> Value {
        let prose = self.prose();
        self.room = self.room.saturating_sub(prose.len() + OVERHEAD);
        let choice = if depth == 0 || self.room == 0 { self.pick(6) } else { self.pick(10) };
        let mut node = match choice {
            0 => json!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}),
            1 => json!({"type": "string", "enum": ["Always", "IfNotPresent", "Never"], "default": "Always"}),
            2 => json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 65535}),
            3 => json!({"type": "boolean", "default": false}),
            4 => json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true,
                "pattern": "^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))))?$"}),
            5 => json!({"type": "string", "nullable": true}),
            6 => json!({"type": "object", "additionalProperties": self.node(depth - 1)}),
            7 => json!({"type": "array", "items": self.node(depth - 1)}),
            _ => {
                let fields: Map<String, Value> =
                    (0..3 + self.pick(5)).map(|i| (format!("field{i}"), self.node(depth - 1))).collect();
                json!({"type": "object", "properties": fields, "required": ["field0"]})
            }
        };
        node["description"] = prose.into();
        node
    }
}
