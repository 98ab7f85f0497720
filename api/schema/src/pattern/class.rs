//! Sets of characters: brackets, `\d`, `[:alpha:]`, `\p{Greek}`, written as classes of the `regex` crate.

use super::syntax::{Parser, Refused};
use std::fmt::Write as _;

/// A class that has nothing: what a lone surrogate comes to, which no text has.
pub(super) const NOTHING: &str = r"[^\x{0}-\x{10FFFF}]";

/// Weight of a class of ASCII.
pub(super) const ASCII: u64 = 2;
/// Weight of one that is described by properties of Unicode: `\pL` has about as many steps in UTF-8.
pub(super) const SCRIPTED: u64 = 1_000;
/// Weight of a range beyond ASCII, and of what a negation adds.
const RANGE: u64 = 40;

/// Items of `\d`, `\s`, `\w`.
pub(super) fn perl(letter: char) -> Option<&'static str> {
    Some(match letter.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r"\t\n\x0C\r\x20",
        'w' => "0-9A-Za-z_",
        _ => return None,
    })
}

/// Items of `[:name:]`.
fn posix(name: &str) -> Option<&'static str> {
    Some(match name {
        "alnum" => "0-9A-Za-z",
        "alpha" => "A-Za-z",
        "ascii" => r"\x00-\x7F",
        "blank" => r"\t\x20",
        "cntrl" => r"\x00-\x1F\x7F",
        "digit" => "0-9",
        "graph" => r"\x21-\x7E",
        "lower" => "a-z",
        "print" => r"\x20-\x7E",
        "punct" => r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E",
        "space" => r"\t\n\x0B\x0C\r\x20",
        "upper" => "A-Z",
        "word" => "0-9A-Za-z_",
        "xdigit" => "0-9A-Fa-f",
        _ => return None,
    })
}

/// General categories by the names that Go has, without case, spaces, dashes and underscores.
const CATEGORIES: &str = "
    assigned c casedletter cc cf closepunctuation cn cntrl co combiningmark connectorpunctuation control cs
    currencysymbol dashpunctuation decimalnumber digit enclosingmark finalpunctuation format
    initialpunctuation l lc letter letternumber lineseparator ll lm lo lowercaseletter lt lu m mark mathsymbol
    mc me mn modifierletter modifiersymbol n nd nl no nonspacingmark number openpunctuation other otherletter
    othernumber otherpunctuation othersymbol p paragraphseparator pc pd pe pf pi po privateuse ps punct
    punctuation s sc separator sk sm so spaceseparator spacingmark surrogate symbol titlecaseletter unassigned
    uppercaseletter z zl zp zs
";

/// Scripts by the names that Go finds: those of two words it does not (`\p{Old_Italic}`).
const SCRIPTS: &str = "
    adlam ahom arabic armenian avestan balinese bamum batak bengali bhaiksuki bopomofo brahmi braille buginese
    buhid carian chakma cham cherokee chorasmian common coptic cuneiform cypriot cyrillic deseret devanagari
    dogra duployan elbasan elymaic ethiopic georgian glagolitic gothic grantha greek gujarati gurmukhi han
    hangul hanunoo hatran hebrew hiragana inherited javanese kaithi kannada katakana kawi kharoshthi khmer
    khojki khudawadi lao latin lepcha limbu lisu lycian lydian mahajani makasar malayalam mandaic manichaean
    marchen medefaidrin miao modi mongolian mro multani myanmar nabataean nandinagari newa nko nushu ogham
    oriya osage osmanya palmyrene phoenician rejang runic samaritan saurashtra sharada shavian siddham sinhala
    sogdian soyombo sundanese syriac tagalog tagbanwa takri tamil tangsa tangut telugu thaana thai tibetan
    tifinagh tirhuta toto ugaritic vai vithkuqi wancho yezidi yi
";

/// The class of `\p{name}` or, with `negated`, of `\P{name}`.
fn unicode(name: &str, negated: bool) -> Option<String> {
    let (name, negated) = name.strip_prefix('^').map_or((name, negated), |rest| (rest, !negated));
    let plain = |c: &char| !matches!(c, ' ' | '_' | '-');
    let name: String = name.chars().filter(plain).map(|c| c.to_ascii_lowercase()).collect();
    let listed = |names: &str| names.split_whitespace().any(|known| known == name);
    let not = if negated { "^" } else { "" };
    Some(match name.as_str() {
        "any" => format!(r"[{not}\x{{0}}-\x{{10FFFF}}]"),
        "ascii" => format!(r"[{not}\x00-\x7F]"),
        "cs" | "surrogate" => format!("[{not}{NOTHING}]"),
        _ if listed(CATEGORIES) => format!(r"[{not}\p{{gc={name}}}]"),
        _ if listed(SCRIPTS) => format!(r"[{not}\p{{sc={name}}}]"),
        _ => return None,
    })
}

/// What stands in brackets, as it is gathered.
#[derive(Default)]
struct Items {
    text: String,
    weight: u64,
}

impl Items {
    fn named(&mut self, items: &str, negated: bool) {
        self.weight += if negated { RANGE } else { 0 };
        match negated {
            true => self.text.extend(["[^", items, "]"]),
            false => self.text.push_str(items),
        }
    }

    fn range(&mut self, low: u32, high: u32) {
        self.weight += if high > 0x7F { RANGE } else { 0 };
        // Ends that no text has.
        let low = if (0xD800..=0xDFFF).contains(&low) { 0xE000 } else { low };
        let high = if (0xD800..=0xDFFF).contains(&high) { 0xD7FF } else { high };
        if low <= high {
            let _ = write!(self.text, r"\x{{{low:X}}}-\x{{{high:X}}}");
        }
    }
}

/// A class in the syntax of the `regex` crate.
pub(super) struct Class {
    pub text: String,
    pub weight: u64,
}

impl Parser<'_> {
    /// `[...]`, the bracket being next.
    pub(super) fn brackets(&mut self) -> Result<Class, Refused> {
        let start = self.at;
        self.next();
        let negated = self.eat("^");
        let mut items = Items::default();
        let mut first = true;
        while first || self.peek() != Some(']') {
            first = false;
            if self.rest().starts_with("[:") && self.named(&mut items)? {
                continue;
            }
            if let Some(class) = self.unicode_class()? {
                items.weight += class.weight;
                items.text.push_str(&class.text);
                continue;
            }
            if let Some((name, negated)) = self.perl_class() {
                items.named(name, negated);
                continue;
            }
            let at = self.at;
            let low = self.member(start)?;
            let mut high = low;
            if self.rest().starts_with('-') && self.rest().len() > 1 && !self.rest().starts_with("-]") {
                self.next();
                high = self.member(start)?;
                if high < low {
                    return Err(Refused::new("invalid character class range", &self.source[at..self.at]));
                }
            }
            items.range(low, high);
        }
        self.next();
        if items.text.is_empty() {
            items.text.push_str(NOTHING);
        }
        let not = if negated { "^" } else { "" };
        let weight = ASCII + items.weight + if negated { RANGE } else { 0 };
        Ok(Class { text: format!("[{not}{}]", items.text), weight })
    }

    /// One character of brackets that began at `start`.
    fn member(&mut self, start: usize) -> Result<u32, Refused> {
        match self.peek() {
            None => Err(Refused::new("missing closing ]", &self.source[start..])),
            Some('\\') => self.escape(),
            Some(c) => {
                self.next();
                Ok(u32::from(c))
            }
        }
    }

    /// `[:alpha:]`; without `:]` anywhere it is a bracket, a colon and so on.
    fn named(&mut self, items: &mut Items) -> Result<bool, Refused> {
        let found = if self.unnamed { None } else { self.rest()[2..].find(":]") };
        let Some(length) = found else {
            self.unnamed = true;
            return Ok(false);
        };
        let name = &self.rest()[2..2 + length];
        let (plain, negated) = name.strip_prefix('^').map_or((name, false), |rest| (rest, true));
        let Some(found) = posix(plain) else {
            return Err(Refused::new("invalid character class range", &self.rest()[..length + 4]));
        };
        items.named(found, negated);
        self.at += length + 4;
        Ok(true)
    }

    /// `\d` and its like.
    pub(super) fn perl_class(&mut self) -> Option<(&'static str, bool)> {
        let letter = self.rest().strip_prefix('\\')?.chars().next()?;
        let items = perl(letter)?;
        self.at += 2;
        Some((items, letter.is_ascii_uppercase()))
    }

    /// `\pL`, `\p{Greek}`, `\P{^Greek}`.
    pub(super) fn unicode_class(&mut self) -> Result<Option<Class>, Refused> {
        let rest = self.rest();
        let Some(after) = rest.strip_prefix("\\p").or_else(|| rest.strip_prefix("\\P")) else { return Ok(None) };
        let (name, length) = match after.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => (&inner[..end], end + 4),
                None => return Err(Refused::new("invalid character class range", rest)),
            },
            None => {
                let length = after.chars().next().map_or(0, char::len_utf8);
                (&after[..length], length + 2)
            }
        };
        match unicode(name, rest.starts_with("\\P")) {
            Some(text) => {
                self.at += length;
                Ok(Some(Class { text, weight: SCRIPTED }))
            }
            None => Err(Refused::new("invalid character class range", &rest[..length])),
        }
    }
}
