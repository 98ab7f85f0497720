//! All that is wrong with a file, not the first alone: what is wrong is taken out of its values, and they are read once more.
//! What is only wrong because something was taken out is not told. Pure. Called by [`super::parse`].

use std::collections::BTreeSet;

use serde_json::Value;

use super::lines::{Lines, Step, steps};
use super::node::Fault;

/// So many are told at once: more are of one cause, or are seen when these are mended.
pub const MOST: usize = 20;

/// Lists whose entries do not refer to each other: one that can't be goes as a whole.
const APART: [&str; 3] = ["neighbors", "dynamic", "networks"];

/// Reads values until nothing is wrong with them.
///
/// # Errors
/// All that was wrong, in the order of the file where `lines` knows it.
pub fn read<T>(
    mut value: Value,
    lines: impl FnOnce() -> Option<Lines>,
    read: impl Fn(&Value) -> Result<T, Fault>,
) -> Result<T, Vec<String>> {
    let mut first = match read(&value) {
        Ok(whole) => return Ok(whole),
        Err(fault) => Some(fault),
    };
    let mut search = Search::new(&value);
    while let Some(fault) = first.take() {
        if search.found(&mut value, fault) {
            first = read(&value).err();
        }
    }
    let lines = lines();
    let line = |fault: &Fault| lines.as_ref().and_then(|lines| lines.line(&fault.path));
    let mut told: Vec<(Option<u64>, Fault)> = search.told.into_iter().map(|fault| (line(&fault), fault)).collect();
    told.sort_by_key(|(line, _)| *line);
    let words = |(line, fault): (Option<u64>, Fault)| match line {
        Some(line) => format!("line {line}: {fault}"),
        None => fault.to_string(),
    };
    Err(told.into_iter().map(words).collect())
}

/// What was found, and taken out.
struct Search {
    told: Vec<Fault>,
    /// Fields that were taken out.
    out: BTreeSet<String>,
    /// Of each list of [`APART`] the places in the file of the entries that are left.
    left: [Vec<usize>; 3],
}

impl Search {
    fn new(value: &Value) -> Search {
        let left = APART.map(|list| (0..value[list].as_array().map_or(0, Vec::len)).collect());
        Search { told: Vec::new(), out: BTreeSet::new(), left }
    }

    /// Notes something that is wrong, and takes it out; whether there may be more.
    fn found(&mut self, value: &mut Value, fault: Fault) -> bool {
        let here: Vec<Step<'_>> = steps(&fault.path).collect();
        let path = self.in_file(&fault.path);
        // It was taken out, and is wanted: the entry that it was in goes with it.
        let again = self.out.contains(&path);
        if !again {
            // Who misspells a field lacks it: that is one error.
            if let (Some(meant), Some((entry, _))) = (fault.meant(), path.rsplit_once('.')) {
                self.out.insert(format!("{entry}.{meant}"));
            }
            self.told.push(Fault { path: path.clone(), problem: self.in_file(&fault.problem) });
        }
        let apart = APART.iter().position(|list| here.first() == Some(&Step::Field(list)));
        let field = here.iter().rposition(|step| matches!(step, Step::Field(_)));
        let Some(last) = field.filter(|_| self.told.len() < MOST) else { return false };
        // Nobody can say what would be wrong with the neighbours of a group, were it right.
        if apart.is_none() && (again || here[0] == Step::Field("groups")) {
            return false;
        }
        // Without its group most of an entry would be missing.
        let whole = again || last == 0 || here[last] == Step::Field("group");
        if !whole && self.take_out(value, &here[..=last], path) {
            return true;
        }
        match (apart, here.get(1)) {
            (Some(list), Some(Step::Place(at))) => {
                let Some(all) = value[APART[list]].as_array_mut().filter(|all| *at < all.len()) else { return false };
                all.remove(*at);
                self.left[list].remove(*at);
                true
            }
            _ => last == 0 && !again && self.take_out(value, &here[..1], fault.path.clone()),
        }
    }

    fn take_out(&mut self, value: &mut Value, steps: &[Step<'_>], path: String) -> bool {
        let Some((Step::Field(name), above)) = steps.split_last() else { return false };
        let place = above.iter().try_fold(value, |value, step| match step {
            Step::Field(name) => value.get_mut(name),
            Step::Place(at) => value.get_mut(at),
        });
        self.out.insert(path);
        match place.and_then(Value::as_object_mut) {
            // What everything else hangs on has a stand-in.
            Some(fields) if above.is_empty() && *name == "router-id" => {
                fields.insert((*name).to_owned(), Value::from("192.0.2.1"));
                true
            }
            Some(fields) => fields.remove(*name).is_some(),
            None => false,
        }
    }

    /// A path, or words with paths in them, as the file has it: entries that were taken out count.
    fn in_file(&self, text: &str) -> String {
        let mut told = text.to_owned();
        for (list, left) in APART.iter().zip(&self.left) {
            let begin = format!("{list}[");
            let mut parts = told.split(&begin);
            let mut next = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let place =
                    part.split_once(']').and_then(|(at, rest)| Some((left.get(at.parse::<usize>().ok()?)?, rest)));
                next += &match place {
                    Some((place, rest)) => format!("{begin}{place}]{rest}"),
                    None => format!("{begin}{part}"),
                };
            }
            told = next;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, parse};
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let all = parse(text, Kind::Speaker, &|_| Err("is not there".to_owned())).expect_err("refused");
        all.lines().map(str::to_owned).collect()
    }

    fn begin(told: &[String]) -> Vec<&str> {
        told.iter()
            .map(|line| {
                line.split(": ").nth(1).map_or("", |field| &line[..line.find(field).unwrap_or(0) + field.len()])
            })
            .collect()
    }

    #[test]
    fn all_that_is_wrong_is_told_by_line() {
        let text = "router-id: nowhere
as: 64512
neighbors:
  - {address: 10.0.0.2, remote-as: internal, hold-time: 1s, colour: red}
  - {address: 10.0.0.x, remote-as: internal}
  - address: 10.0.0.4
    remote-as: external
    import: nobody
    families:
      - ipv4
      - ipv7
  - {address: 10.0.0.2, remote-as: internal}
  - {address: 10.0.0.6, group: none}
  - {address: 10.0.0.7}
  - {address: 10.0.0.4, remote-as: internal}
networks:
  - {prefix: 10.0.0.1/24}
filters:
  - {name: a, rules: [{match: {colour: red}}]}
mrt: {table-interval: 1s}
";
        let all = told(text);
        let wanted = [
            "line 1: router-id",
            "line 4: neighbors[0].colour",
            "line 4: neighbors[0].hold-time",
            "line 5: neighbors[1].address",
            "line 8: neighbors[2].import",
            "line 11: neighbors[2].families[1]",
            "line 12: neighbors[3].address",
            "line 13: neighbors[4].group",
            "line 14: neighbors[5].remote-as",
            "line 15: neighbors[6].address",
            "line 17: networks[0].prefix",
            "line 19: filters[0].rules[0].match.colour",
            "line 20: mrt.table-interval",
        ];
        assert_eq!(begin(&all).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(wanted), "{all:#?}");
        assert!(
            all.is_sorted_by_key(|line| line.split([' ', ':']).nth(1).and_then(|n| n.parse::<u32>().ok())),
            "{all:#?}"
        );
    }

    #[test]
    fn one_cause_is_one_error_and_many_are_not_all_told() {
        // The group is wrong: what its neighbours miss for that is none of theirs.
        let group = "as: 1\nrouter-id: 10.0.0.1\ngroups: [{name: a, remote-as: everybody}]\nneighbors: [{address: 10.0.0.2, group: a}]";
        assert_eq!(begin(&told(group)), ["line 3: groups[0].remote-as"]);
        let number =
            "router-id: 10.0.0.1\nneighbors: [{address: 10.0.0.2, remote-as: 1, route-reflector-client: true}]";
        assert_eq!(told(number), ["as: is missing"]);
        let misspelt = "as: 1\nrouter-id: 10.0.0.1\nneighbors: [{address: 10.0.0.2, remote-az: internal}]";
        assert_eq!(begin(&told(misspelt)), ["line 3: neighbors[0].remote-az"]);
        let many = format!("as: 1\nrouter-id: 10.0.0.1\nneighbors: [{}]", "{address: x},".repeat(1000));
        assert_eq!(told(&many).len(), MOST);
    }
}
