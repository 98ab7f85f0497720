//! Label selectors: the string form (`app=web,tier in (a,b),!old`) and the `LabelSelector` object, and matching.
//!
//! Grammar and messages are upstream's: bad selectors reach people through kubectl.

use crate::field::FieldError;
use crate::names;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `key=value`
    Equals,
    /// `key==value`: as [`Op::Equals`], kept apart because the text form gives back what was written.
    DoubleEquals,
    /// `key!=value`: also true of objects without the label.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`: also true of objects without the label.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>5`: both are integers, or nothing matches.
    GreaterThan,
    /// `key<5`: both are integers, or nothing matches.
    LessThan,
}

/// One requirement on one label key. `values` are sorted and unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// A qualified name, with or without a prefix: `app`, `kubernetes.io/arch`.
    pub key: String,
    /// What is asked of the label's value.
    pub op: Op,
    /// What it is compared with: none for `Exists` and `DoesNotExist`, one for comparisons, one or more for sets.
    pub values: Vec<String>,
}

/// A conjunction of requirements, sorted by key. Empty selects everything, unless it is [`Selector::nothing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

/// A set of labels, in whatever form the caller has it.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<S: std::hash::BuildHasher> Labels for HashMap<String, String, S> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|labels| labels.label(key))
    }
}

impl Requirement {
    /// A checked requirement; the error is upstream's text. `path` is the selector's own path, if it has one.
    pub fn new(key: &str, op: Op, values: impl IntoIterator<Item = String>, path: &str) -> Result<Requirement, String> {
        let values: Vec<String> = values.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut errors: Vec<FieldError> = key_error(key, path).into_iter().collect();
        let at = if path.is_empty() { "values".to_owned() } else { format!("{path}.values") };
        let rule = match op {
            Op::In | Op::NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
            Op::Equals | Op::DoubleEquals | Op::NotEquals if values.len() != 1 => {
                "exact-match compatibility requires one single value"
            }
            Op::Exists | Op::DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            Op::GreaterThan | Op::LessThan if values.len() != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !rule.is_empty() {
            errors.push(FieldError::invalid(&at, Value::from(values.clone()), rule));
        }
        if matches!(op, Op::GreaterThan | Op::LessThan) {
            for (n, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let rule = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(format_args!("{at}[{n}]"), value.as_str(), rule));
            }
        }
        for (n, value) in values.iter().enumerate() {
            let problems = names::label_value(value);
            if !problems.is_empty() {
                errors.push(FieldError::invalid(format_args!("{at}[{n}][{key}]"), value.as_str(), problems.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => Ok(Requirement { key: key.to_owned(), op, values }),
            [one] => Err(one.to_string()),
            many => Err(format!("[{}]", many.iter().map(FieldError::to_string).collect::<Vec<_>>().join(", "))),
        }
    }

    /// Whether the labels meet this requirement.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        let value = labels.label(&self.key);
        let listed = |v: &str| self.values.binary_search_by(|known| known.as_str().cmp(v)).is_ok();
        match self.op {
            Op::Equals | Op::DoubleEquals | Op::In => value.is_some_and(listed),
            Op::NotEquals | Op::NotIn => !value.is_some_and(listed),
            Op::Exists => value.is_some(),
            Op::DoesNotExist => value.is_none(),
            Op::GreaterThan | Op::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.and_then(|v| v.parse::<i64>().ok()), bound) {
                    (Some(v), Some(bound)) if self.op == Op::GreaterThan => v > bound,
                    (Some(v), Some(bound)) => v < bound,
                    _ => false,
                }
            }
        }
    }
}

fn key_error(key: &str, path: &str) -> Option<FieldError> {
    let problems = names::qualified_name(key);
    let at = match path {
        "" => "key".to_owned(),
        path => format!("{path}.key"),
    };
    (!problems.is_empty()).then(|| FieldError::invalid(at, key, problems.join("; ")))
}

impl Selector {
    /// Selects everything.
    pub fn everything() -> Selector {
        Selector::default()
    }

    /// Selects nothing, as an absent `LabelSelector` object does.
    pub fn nothing() -> Selector {
        Selector { requirements: Vec::new(), nothing: true }
    }

    /// Requirements in the order of their keys.
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Selector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector { requirements, nothing: false }
    }

    /// Selects what both select.
    pub fn and(mut self, other: Selector) -> Selector {
        self.requirements.extend(other.requirements);
        Selector { nothing: self.nothing || other.nothing, ..Selector::from_requirements(self.requirements) }
    }

    /// Parses the string form; the error is upstream's text.
    pub fn parse(text: &str) -> Result<Selector, String> {
        parser::parse(text).map(Selector::from_requirements)
    }

    /// Reads a `LabelSelector` object: absent selects nothing, empty selects everything.
    pub fn from_object(object: Option<&Value>) -> Result<Selector, String> {
        let Some(object) = object.filter(|o| !o.is_null()) else {
            return Ok(Selector::nothing());
        };
        let mut out = Vec::new();
        for (key, value) in object.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            out.push(Requirement::new(key, Op::Equals, [value.as_str().unwrap_or_default().to_owned()], "")?);
        }
        for e in object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let op = match e.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Op::In,
                "NotIn" => Op::NotIn,
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                other => return Err(format!("{} is not a valid label selector operator", crate::text::quote(other))),
            };
            let values = e.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let values = values.iter().map(|v| v.as_str().unwrap_or_default().to_owned());
            out.push(Requirement::new(e.get("key").and_then(Value::as_str).unwrap_or_default(), op, values, "")?);
        }
        Ok(Selector::from_requirements(out))
    }

    /// Reads a plain map of labels, all of which must be there (`spec.selector` of a Service).
    pub fn from_map(labels: &Map<String, Value>) -> Selector {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            op: Op::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        Selector::from_requirements(labels.iter().map(requirement).collect())
    }

    /// Whether the labels meet every requirement.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether nothing can match by construction.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The value a key must have, when one requirement says so: what an index can be asked for.
    pub fn exact(&self, key: &str) -> Option<&str> {
        let single = |r: &&Requirement| {
            r.key == key && r.values.len() == 1 && matches!(r.op, Op::Equals | Op::DoubleEquals | Op::In)
        };
        self.requirements.iter().find(single).map(|r| r.values[0].as_str())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match self.op {
            Op::Equals => write!(f, "{}={values}", self.key),
            Op::DoubleEquals => write!(f, "{}=={values}", self.key),
            Op::NotEquals => write!(f, "{}!={values}", self.key),
            Op::In => write!(f, "{} in ({values})", self.key),
            Op::NotIn => write!(f, "{} notin ({values})", self.key),
            Op::Exists => f.write_str(&self.key),
            Op::DoesNotExist => write!(f, "!{}", self.key),
            Op::GreaterThan => write!(f, "{}>{values}", self.key),
            Op::LessThan => write!(f, "{}<{values}", self.key),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The string grammar.
mod parser {
    use super::{Op, Requirement, key_error};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Token {
        End,
        Error,
        Word,
        Comma,
        Open,
        Close,
        Not,
        Operator(Op),
    }

    struct Parser<'a> {
        tokens: Vec<(Token, &'a str)>,
        at: usize,
    }

    fn special(b: u8) -> bool {
        matches!(b, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
    }

    /// Longest symbol at the start of a run of special characters.
    fn symbol(run: &str) -> (Token, usize) {
        const SYMBOLS: [(&str, Token); 9] = [
            ("==", Token::Operator(Op::DoubleEquals)),
            ("!=", Token::Operator(Op::NotEquals)),
            ("=", Token::Operator(Op::Equals)),
            (">", Token::Operator(Op::GreaterThan)),
            ("<", Token::Operator(Op::LessThan)),
            ("!", Token::Not),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
        ];
        SYMBOLS
            .iter()
            .find(|(text, _)| run.starts_with(text))
            .map_or((Token::Error, run.len()), |(text, token)| (*token, text.len()))
    }

    fn lex(text: &str) -> Vec<(Token, &str)> {
        let mut out = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let Some(&first) = rest.as_bytes().first() else {
                out.push((Token::End, ""));
                return out;
            };
            let (token, length) = if special(first) {
                symbol(rest)
            } else {
                let end = rest.find(|c: char| c.is_ascii() && (special(c as u8) || " \t\r\n".contains(c)));
                (Token::Word, end.unwrap_or(rest.len()))
            };
            out.push((token, &rest[..length]));
            rest = &rest[length..];
        }
    }

    impl<'a> Parser<'a> {
        fn peek(&self) -> (Token, &'a str) {
            self.tokens[self.at.min(self.tokens.len() - 1)]
        }

        fn next(&mut self) -> (Token, &'a str) {
            let token = self.peek();
            self.at += 1;
            token
        }

        fn requirement(&mut self) -> Result<Requirement, String> {
            let (mut token, mut key) = self.next();
            let negated = token == Token::Not;
            if negated {
                (token, key) = self.next();
            }
            if token != Token::Word {
                return Err(format!("found '{key}', expected: identifier"));
            }
            if let Some(error) = key_error(key, "") {
                // Upstream has no path for the string form and prints its absence.
                return Err(format!("<nil>: {}", error.body()));
            }
            if matches!(self.peek().0, Token::End | Token::Comma) {
                let op = if negated { Op::DoesNotExist } else { Op::Exists };
                return Requirement::new(key, op, [], "");
            }
            if negated {
                // `!key` is complete; what follows is reported by the caller.
                return Requirement::new(key, Op::DoesNotExist, [], "");
            }
            let op = self.operator()?;
            let values = if matches!(op, Op::In | Op::NotIn) { self.list()? } else { vec![self.exact()?] };
            Requirement::new(key, op, values, "")
        }

        fn operator(&mut self) -> Result<Op, String> {
            match self.next() {
                (Token::Operator(op), _) => Ok(op),
                (Token::Word, "in") => Ok(Op::In),
                (Token::Word, "notin") => Ok(Op::NotIn),
                (_, text) => Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
            }
        }

        fn exact(&mut self) -> Result<String, String> {
            match self.peek() {
                (Token::End | Token::Comma, _) => Ok(String::new()),
                (Token::Word, text) => {
                    self.next();
                    Ok(text.to_owned())
                }
                (_, text) => Err(format!("found '{text}', expected: identifier")),
            }
        }

        fn list(&mut self) -> Result<Vec<String>, String> {
            let (token, text) = self.next();
            if token != Token::Open {
                return Err(format!("found '{text}' expected: '('"));
            }
            match self.peek() {
                (Token::Word | Token::Comma, _) => self.entries(),
                (Token::Close, _) => {
                    self.next();
                    // `x in ()` is accepted and asks for the empty value.
                    Ok(vec![String::new()])
                }
                (_, text) => Err(format!("found '{text}', expected: ',', ')' or identifier")),
            }
        }

        /// Entries up to the closing parenthesis; an absent entry between commas is the empty value.
        fn entries(&mut self) -> Result<Vec<String>, String> {
            let mut out = Vec::new();
            loop {
                match self.next() {
                    (Token::Word, text) => {
                        out.push(text.to_owned());
                        match self.peek() {
                            (Token::Comma, _) => {}
                            (Token::Close, _) => break,
                            (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                        }
                    }
                    (Token::Comma, _) => {
                        if out.is_empty() || matches!(self.peek().0, Token::Close | Token::Comma) {
                            out.push(String::new());
                        }
                        match self.peek().0 {
                            Token::Close => break,
                            Token::Comma => {
                                self.next();
                            }
                            _ => {}
                        }
                    }
                    (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
                }
            }
            self.next();
            Ok(out)
        }
    }

    pub fn parse(text: &str) -> Result<Vec<Requirement>, String> {
        let mut parser = Parser { tokens: lex(text), at: 0 };
        let mut out = Vec::new();
        loop {
            match parser.peek() {
                (Token::Word | Token::Not, _) => {
                    let requirement =
                        parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
                    out.push(requirement);
                    match parser.next() {
                        (Token::End, _) => return Ok(out),
                        (Token::Comma, _) => {
                            let (token, text) = parser.peek();
                            if !matches!(token, Token::Word | Token::Not) {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        }
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(out),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parses_and_prints() {
        for (text, want) in [
            ("", ""),
            ("a=b", "a=b"),
            ("x == y , a != b", "a!=b,x==y"),
            ("x in (b,a)", "x in (a,b)"),
            ("x notin (a)", "x notin (a)"),
            ("!x,y", "!x,y"),
            ("x=", "x="),
            ("in in (in)", "in in (in)"),
            ("x in (,a)", "x in (,a)"),
            ("x>5,y<7", "x>5,y<7"),
            ("a.b/c=d", "a.b/c=d"),
        ] {
            assert_eq!(Selector::parse(text).map(|s| s.to_string()).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, want) in [
            ("x in", "unable to parse requirement: found '' expected: '('"),
            ("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
            ("a,", "found '', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("x in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'"),
            ("!x=y", "found '=', expected: ',' or 'end of string'"),
            ("x>=1", "unable to parse requirement: found '=', expected: identifier"),
            ("a b c", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("/a", "unable to parse requirement: <nil>: Invalid value: \"/a\": prefix part must be non-empty"),
            ("x=a b", "found 'b', expected: ',' or 'end of string'"),
            (
                "x>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(Selector::parse(text).expect_err(text), want);
        }
    }

    #[test]
    fn matches_labels() {
        let labels = json!({"app": "web", "n": "5"});
        for (text, want) in [
            ("app=web", true),
            ("app!=web", false),
            ("x!=web", true),
            ("app in (a,web)", true),
            ("x notin (a)", true),
            ("app,!x", true),
            ("n>4,n<6", true),
            ("n>5", false),
        ] {
            assert_eq!(Selector::parse(text).expect(text).matches(&labels), want, "{text}");
        }
        assert!(!Selector::nothing().matches(&labels));
        assert!(Selector::everything().matches(&labels));
    }

    #[test]
    fn objects_select_too() {
        let object = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "t", "operator": "NotIn", "values": ["x"]}]});
        let selector = Selector::from_object(Some(&object)).expect("selector");
        assert_eq!(selector.to_string(), "app=web,t notin (x)");
        assert!(selector.matches(&json!({"app": "web"})));
        assert!(!selector.matches(&json!({"app": "web", "t": "x"})));
        assert!(Selector::from_object(None).expect("nothing").is_nothing());
        assert!(Selector::from_object(Some(&json!({}))).expect("everything").is_everything());
        let bad = Selector::from_object(Some(&json!({"matchExpressions": [{"key": "t", "operator": "Is"}]})));
        assert_eq!(bad.expect_err("operator"), "\"Is\" is not a valid label selector operator");
    }
}
