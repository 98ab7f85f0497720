//! Rows of the results and how they are printed: as the Markdown table of `benches/README.md`.

/// One figure: what, the goal, ours and the counterpart's, each with its unit.
pub struct Row {
    what: String,
    goal: String,
    ours: Figure,
    theirs: Result<Figure, String>,
    /// A ratio of 2 is twice as good: for times and sizes theirs is divided by ours.
    less_is_better: bool,
}

/// A number and its unit.
#[derive(Clone, Copy)]
pub struct Figure {
    pub value: f64,
    pub unit: &'static str,
}

/// Shorthand for a figure.
pub fn figure(value: f64, unit: &'static str) -> Figure {
    Figure { value, unit }
}

impl Row {
    /// More is better: a rate.
    pub fn rate(what: impl Into<String>, goal: &str, ours: Figure, theirs: Result<Figure, String>) -> Row {
        Row { what: what.into(), goal: goal.to_owned(), ours, theirs, less_is_better: false }
    }

    /// Less is better: a time or a size.
    pub fn cost(what: impl Into<String>, goal: &str, ours: Figure, theirs: Result<Figure, String>) -> Row {
        Row { less_is_better: true, ..Row::rate(what, goal, ours, theirs) }
    }

    fn cells(&self) -> [String; 5] {
        let (theirs, ratio) = match &self.theirs {
            Ok(theirs) => {
                let (better, worse) = if self.less_is_better { (theirs, &self.ours) } else { (&self.ours, theirs) };
                let ratio = if worse.value > 0.0 { format!("{:.1}×", better.value / worse.value) } else { "-".into() };
                (theirs.to_string(), ratio)
            }
            Err(why) => (why.clone(), String::new()),
        };
        [self.what.clone(), self.goal.clone(), self.ours.to_string(), theirs, ratio]
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = match self.value.abs() {
            v if v >= 1000.0 => thousands(self.value),
            v if v >= 100.0 => format!("{:.0}", self.value),
            v if v >= 10.0 => format!("{:.1}", self.value),
            _ => format!("{:.2}", self.value),
        };
        write!(f, "{value}{}{}", if self.unit.starts_with('/') { "" } else { " " }, self.unit)
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (head, tail) = digits.split_at((digits.len() - 1) % 3 + 1);
    let groups = tail.as_bytes().chunks(3).map(String::from_utf8_lossy);
    groups.fold(head.to_owned(), |text, group| format!("{text},{group}"))
}

pub fn print(name: &str, rows: &[Row]) {
    println!("\n### {name}\n| what | goal | ours | theirs | better by |\n|---|---|---|---|---|");
    for row in rows {
        println!("| {} |", row.cells().join(" | "));
    }
    println!();
}
