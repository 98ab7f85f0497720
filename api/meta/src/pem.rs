//! PEM blocks, read as upstream reads them: text around blocks is skipped, a block that is broken is none. And written:
//! bare blocks. Who calls: the kinds of certificates, to judge them; the kubelet, to put them into pods.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block.
pub struct Block {
    /// What it says it is: `CERTIFICATE`.
    pub kind: String,
    /// Lines such as `Proc-Type: 4,ENCRYPTED` stand before its content.
    pub headers: bool,
    /// What base64 stood for: DER.
    pub content: Vec<u8>,
}

/// The first block of a text, and what comes after it.
pub fn first(text: &str) -> Option<(Block, &str)> {
    let mut rest = text;
    loop {
        let start = begin(rest)?;
        let after = &rest[start + "-----BEGIN ".len()..];
        if let Some(found) = block(after) {
            return Some(found);
        }
        rest = after;
    }
}

/// Every block of a text.
pub fn all(text: &str) -> Vec<Block> {
    let (mut blocks, mut rest) = (Vec::new(), text);
    while let Some((block, after)) = first(rest) {
        blocks.push(block);
        rest = after;
    }
    blocks
}

/// Length of a line of a block's text.
const LINE: usize = 64;

/// The text of a block without headers.
pub fn encode(kind: &str, content: &[u8]) -> String {
    let encoded = STANDARD.encode(content);
    let mut text = format!("-----BEGIN {kind}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {kind}-----\n"));
    text
}

/// Where a line begins that opens a block.
fn begin(text: &str) -> Option<usize> {
    const BEGIN: &str = "-----BEGIN ";
    if text.starts_with(BEGIN) {
        return Some(0);
    }
    text.find("\n-----BEGIN ").map(|at| at + 1)
}

fn block(after: &str) -> Option<(Block, &str)> {
    let (line, mut rest) = after.split_once('\n')?;
    let kind = line.trim_end().strip_suffix("-----")?;
    let mut headers = false;
    while let Some((_, more)) = rest.split_once('\n').filter(|(line, _)| line.contains(':')) {
        headers = true;
        rest = more;
    }
    let end = format!("-----END {kind}-----");
    let at = if rest.starts_with(&end) { 0 } else { rest.find(&format!("\n{end}"))? + 1 };
    let encoded: String = rest[..at].chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let content = STANDARD.decode(encoded).ok()?;
    let after = &rest[at + end.len()..];
    let (line, tail) = after.split_once('\n').unwrap_or((after, ""));
    if !line.trim().is_empty() {
        return None;
    }
    Some((Block { kind: kind.to_owned(), headers, content }, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_text() {
        let text = "hello\n-----BEGIN A-----\neA==\n-----END A-----\nthere\n-----BEGIN B-----\nK: v\n\neQ==\n-----END B-----\n";
        let found: Vec<_> = all(text).into_iter().map(|b| (b.kind, b.headers, b.content)).collect();
        assert_eq!(found, [("A".to_owned(), false, b"x".to_vec()), ("B".to_owned(), true, b"y".to_vec())]);
        assert!(all("-----BEGIN A-----\n!\n-----END A-----\n").is_empty());
    }

    #[test]
    fn what_is_written_is_read_again() {
        for length in [0, 1, 48, 49, 200] {
            let content = vec![7; length];
            let text = encode("CERTIFICATE", &content);
            assert!(text.lines().all(|line| line.len() <= LINE), "{text}");
            let found = all(&text);
            assert!(found.len() == 1 && found[0].content == content && found[0].kind == "CERTIFICATE", "{text}");
        }
    }
}
