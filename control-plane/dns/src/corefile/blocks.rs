//! Server blocks with their directives, snippets and imports put in. Pure.

use std::collections::BTreeMap;

use super::words::{MOST_BYTES, Word, Wrong, lines};

/// A file that imports one that imports it ends here; real ones go two deep.
const MOST_IMPORTS_DEEP: usize = 8;
/// What imports multiply to, in directives.
const MOST_DIRECTIVES: usize = 20_000;
/// Each block has a cache, upstreams and a place in the table of zones.
const MOST_BLOCKS: usize = 500;

/// Where upstream's deployments have the ConfigMap of cluster DNS, and the one that k3s and others add to it.
const OWN: &str = "/etc/coredns/";
const CUSTOM: &str = "/etc/coredns/custom/";
const COREFILE: &str = "Corefile";

/// The texts that a configuration is made of: keys of the ConfigMaps `coredns` and `coredns-custom`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub own: BTreeMap<String, String>,
    pub custom: BTreeMap<String, String>,
}

impl Files {
    /// The file that everything begins with.
    pub fn corefile(&self) -> Option<&str> {
        self.own.get(COREFILE).map(String::as_str)
    }

    /// The text at a path, when it is one of the ConfigMaps'.
    pub fn at(&self, path: &str) -> Option<&str> {
        let (files, name) = match path.strip_prefix(CUSTOM) {
            Some(name) => (&self.custom, name),
            None => (&self.own, path.strip_prefix(OWN)?),
        };
        files.get(name).map(String::as_str)
    }

    /// Whether a path lies where the ConfigMaps are.
    pub fn holds(path: &str) -> bool {
        path.starts_with(OWN)
    }

    /// The files that a pattern with at most one `*` means; none when it leads elsewhere.
    fn matching(&self, pattern: &str) -> Option<Vec<(&str, &str)>> {
        // As in a Corefile of upstream's, a path that does not begin at the root begins beside the Corefile.
        let full = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{OWN}{pattern}") };
        let (files, name) = match full.strip_prefix(CUSTOM) {
            Some(name) => (&self.custom, name),
            None => (&self.own, full.strip_prefix(OWN)?),
        };
        let (before, after) = match name.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (name, None),
        };
        let means = |key: &str| match after {
            None => key == before,
            Some(after) => key.len() >= before.len() + after.len() && key.starts_with(before) && key.ends_with(after),
        };
        Some(files.iter().filter(|(key, _)| means(key)).map(|(key, text)| (key.as_str(), text.as_str())).collect())
    }
}

/// Zones, and what is done for them.
#[derive(Clone, Debug)]
pub struct Block {
    pub keys: Vec<Word>,
    pub directives: Vec<Directive>,
}

/// One plugin's name, words and lines.
#[derive(Clone, Debug)]
pub struct Directive {
    pub name: Word,
    pub args: Vec<Word>,
    pub body: Vec<Vec<Word>>,
}

impl Directive {
    /// For plugins that have no further words.
    pub fn bare(&self) -> Result<(), Wrong> {
        let further = self.args.iter().chain(self.body.iter().flatten()).next();
        further.map_or(Ok(()), |word| Err(word.wrong(format!("{} takes nothing more", self.name.text))))
    }

    /// For plugins that have no lines of their own.
    pub fn without_body(&self) -> Result<(), Wrong> {
        let line = self.body.first().and_then(|line| line.first());
        line.map_or(Ok(()), |word| Err(word.wrong(format!("{} has no options in braces", self.name.text))))
    }
}

/// The blocks of a configuration, in order.
pub fn blocks(files: &Files) -> Result<Vec<Block>, Wrong> {
    let mut reader = Reader { files, snippets: BTreeMap::new(), blocks: Vec::new(), directives: 0, imported: 0 };
    reader.file(COREFILE, files.corefile().unwrap_or_default(), 0)?;
    Ok(reader.blocks)
}

struct Reader<'f> {
    files: &'f Files,
    snippets: BTreeMap<String, Vec<Directive>>,
    blocks: Vec<Block>,
    directives: usize,
    /// Bytes that imports have put in.
    imported: usize,
}

impl Reader<'_> {
    fn file(&mut self, name: &str, text: &str, depth: usize) -> Result<(), Wrong> {
        let mut rest = lines(name, text)?.into_iter();
        while let Some(mut line) = rest.next() {
            if line[0].is("import") {
                self.import_blocks(&line, depth)?;
                continue;
            }
            // A comma at the end of a line goes on with the list of zones.
            while line.last().is_some_and(|w| w.text.ends_with(','))
                && let Some(next) = rest.next()
            {
                line.extend(next);
            }
            let opening = line.pop_if(|word| word.is("{"));
            let (Some(opening), Some(first)) = (opening, line.first().cloned()) else {
                let word = line.first().cloned().or_else(|| rest.next().and_then(|l| l.into_iter().next()));
                let missing = "zones and then { at the end of the line are wanted here";
                return Err(match word {
                    Some(word) => word.wrong(missing),
                    None => Wrong { file: name.into(), line: 1, word: String::new(), reason: missing.to_owned() },
                });
            };
            let directives = self.directives(&mut rest, &opening, depth)?;
            let snippet = first.text.strip_prefix('(').and_then(|t| t.strip_suffix(')'));
            match snippet {
                Some(name) if line.len() == 1 => {
                    if self.snippets.insert(name.to_owned(), directives).is_some() {
                        return Err(first.wrong("this snippet is there already"));
                    }
                }
                _ => {
                    if self.blocks.len() == MOST_BLOCKS {
                        return Err(first.wrong(format!("more than {MOST_BLOCKS} server blocks")));
                    }
                    self.blocks.push(Block { keys: line, directives });
                }
            }
        }
        Ok(())
    }

    fn import_blocks(&mut self, line: &[Word], depth: usize) -> Result<(), Wrong> {
        for (name, text) in self.imported(line, depth)? {
            self.file(&name, &text, depth + 1)?;
        }
        Ok(())
    }

    /// What an import that names files means.
    fn imported(&mut self, line: &[Word], depth: usize) -> Result<Vec<(String, String)>, Wrong> {
        let [_, pattern] = line else { return Err(line[0].wrong("import takes one pattern or the name of a snippet")) };
        if depth == MOST_IMPORTS_DEEP {
            return Err(pattern.wrong("imports import each other"));
        }
        let found = self.files.matching(&pattern.text).ok_or_else(|| {
            pattern.wrong(format!(
                "no snippet before it has this name, and only the ConfigMaps coredns ({OWN}) and coredns-custom \
                 ({CUSTOM}) are imported from"
            ))
        })?;
        if found.is_empty() && !pattern.text.contains('*') {
            return Err(pattern.wrong("there is no such key in the ConfigMap"));
        }
        // A pattern costs something though it finds nothing.
        self.imported += 1000 + found.iter().map(|(_, text)| text.len()).sum::<usize>();
        if self.imported > 4 * MOST_BYTES {
            return Err(pattern.wrong("imports come to more than four mebibytes"));
        }
        Ok(found.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect())
    }

    /// Directives to the closing brace.
    fn directives(
        &mut self,
        rest: &mut std::vec::IntoIter<Vec<Word>>,
        opening: &Word,
        depth: usize,
    ) -> Result<Vec<Directive>, Wrong> {
        let mut all = Vec::new();
        while let Some(line) = inner(rest, opening)? {
            self.line(line, rest, depth, &mut all)?;
        }
        Ok(all)
    }

    fn line(
        &mut self,
        mut line: Vec<Word>,
        rest: &mut std::vec::IntoIter<Vec<Word>>,
        depth: usize,
        all: &mut Vec<Directive>,
    ) -> Result<(), Wrong> {
        if line[0].is("import") {
            return self.import_directives(&line, depth, all);
        }
        let opening = line.pop_if(|word| word.is("{"));
        if let Some(brace) = line.iter().find(|w| w.is("{") || w.is("}")) {
            return Err(brace.wrong("a brace stands at the end of its line, or alone on one"));
        }
        let mut words = line.into_iter();
        let Some(name) = words.next() else {
            return opening.map_or(Ok(()), |word| Err(word.wrong("the name of a plugin is wanted before it")));
        };
        let body = match opening {
            Some(opening) => body(rest, &opening)?,
            None => Vec::new(),
        };
        self.count(&name)?;
        all.push(Directive { name, args: words.collect(), body });
        Ok(())
    }

    fn import_directives(&mut self, line: &[Word], depth: usize, all: &mut Vec<Directive>) -> Result<(), Wrong> {
        if let [import, name] = line
            && let Some(snippet) = self.snippets.get(&name.text).cloned()
        {
            for directive in snippet {
                self.count(import)?;
                all.push(directive);
            }
            return Ok(());
        }
        for (name, text) in self.imported(line, depth)? {
            let mut rest = lines(&name, &text)?.into_iter();
            while let Some(line) = rest.next() {
                if line[0].is("}") {
                    return Err(line[0].wrong("this brace closes nothing"));
                }
                self.line(line, &mut rest, depth + 1, all)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, at: &Word) -> Result<(), Wrong> {
        self.directives += 1;
        if self.directives > MOST_DIRECTIVES {
            return Err(at.wrong(format!("more than {MOST_DIRECTIVES} plugins")));
        }
        Ok(())
    }
}

/// The lines of a directive's own braces.
fn body(rest: &mut std::vec::IntoIter<Vec<Word>>, opening: &Word) -> Result<Vec<Vec<Word>>, Wrong> {
    let mut all = Vec::new();
    while let Some(line) = inner(rest, opening)? {
        if let Some(brace) = line.iter().find(|w| w.is("{") || w.is("}")) {
            return Err(brace.wrong("no plugin here has braces in its braces"));
        }
        all.push(line);
    }
    Ok(all)
}

/// The next line between braces; none at the closing one, which stands alone.
fn inner(rest: &mut std::vec::IntoIter<Vec<Word>>, opening: &Word) -> Result<Option<Vec<Word>>, Wrong> {
    let line = rest.next().ok_or_else(|| opening.wrong("this brace is never closed"))?;
    match line.get(1) {
        _ if !line[0].is("}") => Ok(Some(line)),
        None => Ok(None),
        Some(word) => Err(word.wrong("nothing may follow a closing brace on its line")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(corefile: &str, custom: &[(&str, &str)]) -> Files {
        let text = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Files { own: [("Corefile".to_owned(), corefile.to_owned())].into(), custom: custom.iter().map(text).collect() }
    }

    fn told(files: &Files) -> Result<Vec<String>, String> {
        let text = |words: &[Word]| words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
        let directive = |d: &Directive| {
            let body: Vec<_> = d.body.iter().map(|l| text(l)).collect();
            format!("{} {} [{}]", d.name.text, text(&d.args), body.join("; "))
        };
        let block = |b: &Block| {
            format!("{}: {}", text(&b.keys), b.directives.iter().map(directive).collect::<Vec<_>>().join(", "))
        };
        blocks(files).map(|all| all.iter().map(block).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn blocks_snippets_and_imports_are_put_together() {
        let corefile = "(common) {\n  errors\n  log . {\n    class error\n  }\n}\n.:53,\n x.org {\n import common\n \
                        forward . 1.1.1.1\n import /etc/coredns/custom/*.override\n}\nimport custom/*.server\n";
        let custom = [("a.override", "cache 30\n"), ("b.server", "corp {\n whoami\n}\n"), ("c", "no {")];
        assert_eq!(
            told(&files(corefile, &custom)).unwrap(),
            [".:53, x.org: errors  [], log . [class error], forward . 1.1.1.1 [], cache 30 []", "corp: whoami  []"]
        );
        assert_eq!(told(&files(". {\n import /etc/coredns/custom/*.override\n}\n", &[])).unwrap(), [".: "]);
    }

    #[test]
    fn what_can_not_be_read_says_where() {
        for (text, line, part) in [
            (". {\n errors\n", 1, "never closed"),
            (".\nerrors", 1, "zones and then {"),
            ("{\n}", 2, "zones and then {"),
            (". {\n } }", 2, "nothing may follow"),
            (". {\n a { b }\n}", 2, "stands at the end"),
            (". {\n a {\n  b {\n  }\n }\n}", 3, "braces in its braces"),
            (". {\n import /etc/shadow\n}", 2, "only the ConfigMaps"),
            (". {\n import /etc/coredns/gone\n}", 2, "no such key"),
            ("(a) {\n}\n(a) {\n}", 3, "already"),
        ] {
            let error = blocks(&files(text, &[])).unwrap_err();
            assert!(error.line == line && error.reason.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn imports_that_import_each_other_end() {
        let circle = [("a.server", "import /etc/coredns/custom/a.server\n")];
        let told = blocks(&files("import /etc/coredns/custom/*.server\n", &circle)).unwrap_err().to_string();
        assert!(told.contains("import each other"), "{told}");
        let mut doubling = String::from("(s0) {\n errors\n errors\n}\n");
        for i in 1..40 {
            doubling.push_str(&format!("(s{i}) {{\n import s{0}\n import s{0}\n}}\n", i - 1));
        }
        assert!(blocks(&files(&doubling, &[])).unwrap_err().reason.contains("more than"));
    }
}
