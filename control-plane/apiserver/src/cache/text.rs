//! A short text of an entry, a label or a selectable field: where it stands in the stored bytes, or itself where these say
//! it in another way or not at all. A pod has a dozen of them, and an entry each. Pure. Called by `entry`.

/// See the module's head.
#[derive(Debug, Clone)]
pub(super) enum Text {
    At { start: u32, end: u32 },
    Own(Box<str>),
}

impl Text {
    /// `text`, which may be a piece of `value`.
    pub fn new(value: &[u8], text: &str) -> Text {
        let start = text.as_ptr().addr().wrapping_sub(value.as_ptr().addr());
        let piece = start.checked_add(text.len()).filter(|end| !text.is_empty() && *end <= value.len());
        match (u32::try_from(start), piece.map(u32::try_from)) {
            (Ok(start), Some(Ok(end))) => Text::At { start, end },
            _ => Text::Own(text.into()),
        }
    }

    /// In the bytes that it was made of.
    pub fn of<'a>(&'a self, value: &'a [u8]) -> &'a str {
        match self {
            Text::At { start, end } => std::str::from_utf8(&value[*start as usize..*end as usize]).unwrap_or_default(),
            Text::Own(text) => text,
        }
    }

    /// The same, whatever becomes of the bytes.
    pub fn detached(&self, value: &[u8]) -> Text {
        Text::Own(self.of(value).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_a_place_and_anything_else_is_kept() {
        let value = br#"{"a":"web"}"#.to_vec();
        let piece = std::str::from_utf8(&value[6..9]).expect("text");
        let at = Text::new(&value, piece);
        assert!(matches!(at, Text::At { start: 6, end: 9 }));
        for (text, wanted) in [(at.clone(), "web"), (Text::new(&value, "else"), "else"), (Text::new(&value, ""), "")] {
            assert_eq!(text.of(&value), wanted);
            assert_eq!(text.detached(&value).of(b""), wanted);
        }
        assert!(matches!(Text::new(&value, &value_of_another()), Text::Own(_)));
        assert_eq!(size_of::<Text>(), 16);
    }

    fn value_of_another() -> String {
        "web".to_owned()
    }
}
