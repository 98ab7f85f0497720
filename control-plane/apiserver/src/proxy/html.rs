//! Links in pages that come through /proxy: a path of the backend's becomes one below the proxy's, so that a browser
//! finds its way back. Pure, and a piece at a time: pages may be long and slow.

/// Rewrites a page as it passes.
pub struct Rewriter {
    /// The proxy's path, without a slash at its end.
    prefix: String,
    /// `host:port` of the backend: links to it are links to itself.
    own: String,
    /// What came and can't be told yet: the beginning of a tag.
    pending: Vec<u8>,
    /// How far its end was looked for: a page that comes byte by byte is read once all the same.
    looked: Looked,
    /// Inside an element whose content is no HTML: its name.
    raw: Option<&'static str>,
}

/// Longest tag that is waited for.
const MAX_TAG: usize = 64 << 10;

/// Elements whose content is text.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Attributes that hold links.
const LINKS: [&str; 13] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "src",
];

impl Rewriter {
    pub fn new(prefix: &str, own: String) -> Rewriter {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Rewriter { prefix, own, pending: Vec::new(), looked: Looked::default(), raw: None }
    }

    /// Takes a piece of the page, and gives what is settled.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(piece);
        let pending = std::mem::take(&mut self.pending);
        let mut out = Vec::new();
        let mut done = 0;
        while let Some(at) = pending[done..].iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&pending[done..done + at]);
            done += at;
            let Some(length) = tag_length(&pending[done..], &mut self.looked) else { break };
            self.looked = Looked::default();
            self.tag(&pending[done..done + length], &mut out);
            done += length;
        }
        let rest = &pending[done..];
        if rest.first() == Some(&b'<') && rest.len() < MAX_TAG {
            self.pending = if done == 0 { pending } else { rest.to_vec() };
        } else {
            self.looked = Looked::default();
            out.extend_from_slice(rest);
        }
        out
    }

    /// What is left when the page ends.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let name = name_of(tag);
        if let Some(raw) = self.raw {
            if name.strip_prefix('/') == Some(raw) {
                self.raw = None;
            }
            return out.extend_from_slice(tag);
        }
        self.raw = RAW.into_iter().find(|raw| *raw == name);
        if name.is_empty() || name.starts_with(['/', '!', '?']) {
            return out.extend_from_slice(tag);
        }
        let mut copied = 0;
        for (start, end) in link_values(tag) {
            let Ok(link) = std::str::from_utf8(&tag[start..end]) else { continue };
            let Some(link) = self.rewritten(link) else { continue };
            out.extend_from_slice(&tag[copied..start]);
            out.extend_from_slice(link.as_bytes());
            copied = end;
        }
        out.extend_from_slice(&tag[copied..]);
    }

    /// The link below the proxy; None when it stays as it is.
    fn rewritten(&self, link: &str) -> Option<String> {
        let path = match link.split_once("://") {
            Some(("http" | "https", rest)) => rest.strip_prefix(self.own.as_str())?,
            Some(_) => return None,
            None if link.starts_with("//") => link[2..].strip_prefix(self.own.as_str())?,
            None => link,
        };
        let path = if path.is_empty() { "/" } else { path };
        let below =
            path.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        (path.starts_with('/') && !below).then(|| format!("{}{path}", self.prefix))
    }
}

/// How far the end of a tag was looked for, and in which quotes that was.
#[derive(Default)]
struct Looked {
    at: usize,
    quote: Option<u8>,
}

/// Bytes of the tag, comment or declaration at the start; None when its end has not come.
fn tag_length(text: &[u8], looked: &mut Looked) -> Option<usize> {
    if text.starts_with(b"<!--") {
        // An end may have begun in what was looked at.
        let from = looked.at.saturating_sub(2);
        looked.at = text.len();
        return text[from..].windows(3).position(|end| end == b"-->").map(|at| from + at + 3);
    }
    if b"<!--".starts_with(text) {
        return None;
    }
    let from = std::mem::replace(&mut looked.at, text.len()).max(1);
    let quote = &mut looked.quote;
    for (at, byte) in text.iter().enumerate().skip(from) {
        match (*quote, byte) {
            (Some(open), _) if *byte == open => *quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') if text[at - 1] == b'=' => *quote = Some(*byte),
            (None, b'>') => return Some(at + 1),
            // Not a tag: a sign in a text.
            (None, b'<') => return Some(at),
            _ => {}
        }
    }
    None
}

/// The name in lower case; with a slash in front for an end tag.
fn name_of(tag: &[u8]) -> String {
    let name = tag.iter().skip(1).take_while(|byte| !byte.is_ascii_whitespace() && **byte != b'>');
    let name: String = name.map(|byte| byte.to_ascii_lowercase() as char).collect();
    name.strip_suffix('/').filter(|name| !name.is_empty()).map(str::to_owned).unwrap_or(name)
}

/// Where the values of attributes that hold links begin and end.
fn link_values(tag: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 1 + tag.iter().skip(1).take_while(|byte| !byte.is_ascii_whitespace() && **byte != b'>').count();
    while at < tag.len() {
        let start = at + tag[at..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'/').count();
        let ends = |byte: &&u8| !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'>');
        let end = start + tag[start..].iter().take_while(ends).count();
        let name = String::from_utf8_lossy(&tag[start..end]).to_ascii_lowercase();
        if tag.get(end) != Some(&b'=') {
            at = (end).max(at + 1);
            continue;
        }
        let value = end + 1;
        let (from, to) = match tag.get(value) {
            Some(quote @ (b'"' | b'\'')) => {
                let length = tag[value + 1..].iter().take_while(|byte| *byte != quote).count();
                (value + 1, value + 1 + length)
            }
            _ => (value, value + tag[value..].iter().take_while(|b| !b.is_ascii_whitespace() && **b != b'>').count()),
        };
        if LINKS.contains(&name.as_str()) {
            found.push((from, to));
        }
        at = to + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/a/pods/p/proxy";

    fn through(page: &str, piece: usize) -> String {
        let mut rewriter = Rewriter::new(PREFIX, "10.0.0.5:80".to_owned());
        let mut out: Vec<u8> = page.as_bytes().chunks(piece).flat_map(|piece| rewriter.push(piece)).collect();
        out.extend(rewriter.finish());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn paths_of_the_backend_become_paths_of_the_proxy() {
        for (page, want) in [
            ("<a href=\"/x\">t</a>", "<a href=\"P/x\">t</a>"),
            ("<IMG alt='>' SRC=/i.png/>", "<IMG alt='>' SRC=P/i.png/>"),
            ("<form method=post action='/'>", "<form method=post action='P/'>"),
            ("<a href=\"http://10.0.0.5:80/x?a=/b\">", "<a href=\"P/x?a=/b\">"),
            ("<a href=\"//10.0.0.5:80\">", "<a href=\"P/\">"),
            ("<a download href=\"/x\" title=\"/y\">", "<a download href=\"P/x\" title=\"/y\">"),
        ] {
            for piece in [1, 7, 1000] {
                assert_eq!(through(page, piece), want.replace('P', PREFIX), "{page} by {piece}");
            }
        }
    }

    #[test]
    fn the_rest_of_a_page_stays_as_it_is() {
        for page in [
            "<a href=\"x\"><a href=\"https://example.com/x\"><a href='mailto:a@b'><a href=\"//elsewhere/x\">",
            "<script>if (a<b) x('<a href=\"/x\">')</script>",
            "<!-- <a href=\"/x\"> --><!doctype html><p>1 < 2",
            "<a href=\"/api/v1/namespaces/a/pods/p/proxy/x\">",
            "<a href=\"/unfinished",
            "",
        ] {
            for piece in [1, 5, 1000] {
                assert_eq!(through(page, piece), page, "by {piece}");
            }
        }
    }
}
