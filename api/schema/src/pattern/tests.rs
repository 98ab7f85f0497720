//! Patterns against what Go 1.26 says of them.

use super::*;
use serde_json::Value;

/// First the texts; then an expression a line, with those of the texts that it occurs `in`, or with how it is `refused`.
const GO: &str = include_str!("go.jsonl");

fn with_the_stack_that_there_is(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(meta::depth::STACK_BYTES / 2).spawn(work).unwrap().join().unwrap();
}

#[test]
fn patterns_mean_what_they_mean_in_go() {
    with_the_stack_that_there_is(|| {
        let mut lines = GO.lines().map(|line| serde_json::from_str::<Value>(line).expect("test data"));
        let texts = lines.next().expect("the texts");
        let texts: Vec<&str> = texts.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let mut differ = Vec::new();
        for case in lines {
            let pattern = Pattern::new(case["p"].as_str().expect("a pattern"));
            let ours = match pattern.check() {
                Ok(()) => Value::from_iter(texts.iter().copied().filter(|text| pattern.is_match(text))),
                Err(why) => why.into(),
            };
            let same = match (&ours, case["refused"].as_str()) {
                (Value::String(why), Some(theirs)) => {
                    theirs.trim_end_matches('`').starts_with(why.trim_end_matches('`'))
                }
                (list, None) => *list == case["in"],
                _ => false,
            };
            if !same {
                differ.push(format!("{case}\n   ours: {ours}"));
            }
        }
        assert!(differ.is_empty(), "{}", differ.join("\n"));
    });
}

#[test]
fn an_expression_of_any_size_costs_little() {
    with_the_stack_that_there_is(|| {
        let refused = |source: String| Pattern::new(source).check().expect_err("too large");
        for source in [
            "a".repeat(MAX_LENGTH + 1),
            r"(?:\pL{1000})".repeat(1_000),
            r"(?i:[^k]{1000})".repeat(10_000),
            "(?:a{1000})".repeat(20_000),
        ] {
            assert!(refused(source).starts_with("error parsing regexp: expression too large: `"));
        }
        for end in [")*", ")", "|b)"] {
            assert!(refused("(?:a".repeat(30_000) + &end.repeat(30_000)).contains("nests too deeply"));
        }
        assert_eq!(Pattern::new("(?:".repeat(60_000) + &")".repeat(60_000)).check(), Ok(()));
        let deep = syntax::MAX_HEIGHT as usize / 2;
        let deep = Pattern::new("(?:a".repeat(deep) + &")*".repeat(deep));
        assert_eq!((deep.check(), deep.is_match("aaa")), (Ok(()), true));
    });
}

/// Each brace and each `[:` was looked for its end to the end of the expression: minutes for one body.
#[test]
fn braces_and_brackets_without_an_end_are_passed_over() {
    let began = std::time::Instant::now();
    let braces = "{".repeat(MAX_LENGTH - 1);
    for source in [braces.clone(), braces + "}", format!("[{}x]", "[:".repeat(MAX_LENGTH / 2 - 2))] {
        assert_eq!(Pattern::new(source).check(), Ok(()));
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    for (source, text) in [("^a{,2}$", "a{,2}"), ("^a{2$", "a{2"), ("^a{1,2,3}$", "a{1,2,3}"), ("^a{02}$", "a{02}")] {
        assert!(Pattern::new(source).is_match(text), "{source}");
    }
    assert!(Pattern::new("^a{2,}$").is_match("aaa") && !Pattern::new("^a{2}$").is_match("a{2}"));
}

/// Expressions are judged by their weight alone, so that it may not be less than what they are when they are compiled.
#[test]
fn what_is_light_enough_compiles() {
    for (class, weight) in [
        (r"\PL", 1_000),
        ("[^a]", 42),
        ("[^aé-ü]", 82),
        ("(?i:[^k])", 1_042),
        (r"(?i:\p{Lu})", 2_000),
        ("(?s:.)", 40),
        ("é", 2),
        ("(?i)k", 4),
        (r"\w", 2),
        (r"\B", 1),
    ] {
        assert_eq!(syntax::parse(class).unwrap().weight(), weight, "{class}");
        let times = (MAX_WEIGHT - 1) / (weight + 1);
        let source = format!("(?:{class}){{1000}}").repeat((times / 1_000) as usize);
        let source = format!("{source}(?:{class}){{{}}}", times % 1_000);
        assert!(compile(&syntax::parse(&source).unwrap()).is_some(), "{class}");
    }
}
