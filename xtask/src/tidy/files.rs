//! What holds for each file: its head, its size, whether it is pure, who listens, what is unbounded. Called by `tidy`.

const MAX_FN: usize = 70;
const MAX_FILE: usize = 600;

/// Where sockets are bound: by the one listener, in two places that hand theirs to it, and in two of a protocol that is not
/// HTTP's; and here is the word.
const LISTENERS: &[&str] = &[
    "xtask/",
    "serving/",
    "testkit/",
    "control-plane/etcd/src/server/listen.rs",
    "node/runtime/src/daemon.rs",
    // Keys of neighbours are set on the socket, and who connects is judged by address before anything else.
    "network/bgpd/src/daemon/listen.rs",
    "network/bgpd/src/control/server.rs",
];

/// By which a file touches the outside: files, network, programs, environment, clock, chance.
const OUTSIDE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env::var",
    "std::env::args",
    "std::env::current",
    "std::process::Command",
    "Instant::now",
    "Timestamp::now",
    "SystemTime::now",
    "rand::",
];

/// Faults of one file go to `faults`; sizes over a limit come back, for the debts to be looked up.
pub fn faults(name: &str, text: &str, faults: &mut Vec<String>) -> Vec<(String, usize)> {
    let mut large = Vec::new();
    let is_test = name.contains("/tests/")
        || name.ends_with("tests.rs")
        || name.contains("/benches/")
        || name.contains("/examples/");
    if !text.starts_with("//!") {
        faults.push(format!("{name}: does not open with //! lines that say what, why and who calls"));
    }
    let lines = text.lines().count();
    if lines > MAX_FILE {
        large.push((name.to_owned(), lines));
    }
    let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    for (function, size) in functions(production) {
        if size > MAX_FN && !is_test {
            large.push((format!("{name}:{function}"), size));
        }
    }
    let head: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
    let outside = OUTSIDE.iter().find(|word| has_word(production, word));
    let may = is_test
        || ["daemon.rs", "main.rs", "build.rs"].iter().any(|f| name.ends_with(f))
        || ["ferrokube/", "xtask/", "linux/", "testkit/", "client/", "benches/"].iter().any(|d| name.starts_with(d))
        || head.contains("I/O");
    let listens =
        production.contains("tokio::net") && ["TcpListener", "UnixListener"].iter().any(|l| production.contains(l));
    if listens && !is_test && !LISTENERS.iter().any(|place| name.starts_with(place)) {
        faults.push(format!("{name}: listens by itself; limits and deadlines are in serving::Listener"));
    }
    if let Some(word) = outside.filter(|_| !may) {
        faults.push(format!("{name}: touches the outside ({word}), but its head doesn't say \"I/O\""));
    }
    if !is_test {
        let open = unbounded(production).into_iter();
        faults.extend(open.map(|line| format!("{name}:{line}: no comment says what bounds this channel")));
    }
    large
}

/// Functions of a file in rustfmt's form and their lines from `fn` to the closing brace.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let words: Vec<&str> = trimmed.split_whitespace().collect();
        let Some(position) = words.iter().position(|w| *w == "fn") else { continue };
        let modifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\""];
        if !words[..position].iter().all(|w| modifiers.contains(w)) {
            continue;
        }
        let name =
            words.get(position + 1).map(|w| w.split(['(', '<']).next().unwrap_or(w).to_owned()).unwrap_or_default();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[at..]
            .iter()
            .position(|l| *l == close || l.trim_end().ends_with(';') && l.len() - l.trim_start().len() == indent);
        found.push((name, end.map_or(1, |e| e + 1)));
    }
    found
}

/// Whether a line that is no comment has a word that is not the end of another.
fn has_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.match_indices(word).map(move |(at, _)| &line[..at]))
        .any(|before| !before.ends_with(inside))
}

/// Lines that make an unbounded channel without a comment just above them.
fn unbounded(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    // In pieces: these lines make none.
    let makers = [concat!("= ", "unbounded_channel("), concat!("::", "unbounded_channel(")];
    let makes = |line: &str| makers.iter().any(|maker| line.contains(maker));
    let told = |at: usize| at > 0 && lines[at - 1].trim_start().starts_with("//");
    (0..lines.len()).filter(|at| makes(lines[*at]) && !told(*at)).map(|at| at + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_seen() {
        let text = format!(
            "impl A {{\n    pub async fn long(&self) {{\n{}    }}\n    fn short() {{}}\n}}\n",
            "        x();\n".repeat(80)
        );
        assert_eq!(functions(&text)[0], ("long".to_owned(), 82));
        assert_eq!(functions(&text)[1].1, 1, "{:?}", functions(&text));
    }

    #[test]
    fn a_file_that_listens_by_itself_is_seen() {
        let text = "//! I/O.\nuse tokio::net::{TcpListener, TcpStream};\n";
        let said = |name: &str| {
            let mut found = Vec::new();
            faults(name, text, &mut found);
            found.len()
        };
        assert_eq!((said("node/proxy/src/health.rs"), said("serving/src/listener.rs")), (1, 0));
    }

    #[test]
    fn a_pure_file_may_not_touch_the_world() {
        let mut found = Vec::new();
        faults("a/src/plan.rs", "//! Pure.\nuse std::fs;\n", &mut found);
        faults("a/src/disk.rs", "//! The disk: I/O.\nuse std::fs;\n", &mut found);
        faults("a/src/headless.rs", "fn a() {}\n", &mut found);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn the_clock_and_chance_are_the_outside() {
        for line in ["let t = Timestamp::now();", "let n = rand::random();", "std::env::var(\"HOME\")"] {
            let mut said = Vec::new();
            faults("a/src/plan.rs", &format!("//! Pure.\n{line}\n"), &mut said);
            assert_eq!(said.len(), 1, "{line}");
        }
        assert!(!has_word("operand::new()", "rand::"));
    }

    #[test]
    fn a_channel_without_a_bound_says_why() {
        let text = "let a = mpsc::unbounded_channel();\n// One answer a request.\nlet b = mpsc::unbounded_channel();";
        assert_eq!(unbounded(text), [1]);
    }
}
