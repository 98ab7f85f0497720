//! Which decoded views stay: the newest, as long as their texts together have no more than some bytes. So a small cluster
//! has everything decoded, and a large one what is looked at just now. Called by `held`.
//!
//! ```text
//!   read ──> newest │ … │ … │ oldest ──> cooled: text alone, read again by the next who asks
//! ```
//!
//! The line holds nothing by itself: an object that is gone takes its view along.

use std::collections::VecDeque;
use std::sync::{LazyLock, Weak};

use parking_lot::Mutex;

/// Texts of all views that stay. A pod's view takes about six times its text.
const MOST_BYTES: usize = 4 << 20;

/// Something that can let go of its view.
pub trait Warm: Send + Sync {
    /// Lets go of it.
    fn cool(&self);
}

static LINE: LazyLock<Mutex<Line>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Line {
    views: VecDeque<(Weak<dyn Warm>, usize)>,
    bytes: usize,
}

/// Takes a new view, of a text of so many bytes, and cools those that are too old for it.
pub fn keep(view: Weak<dyn Warm>, bytes: usize) {
    let leaving = LINE.lock().push(view, bytes);
    leaving.iter().filter_map(Weak::upgrade).for_each(|view| view.cool());
}

impl Line {
    fn push(&mut self, view: Weak<dyn Warm>, bytes: usize) -> Vec<Weak<dyn Warm>> {
        self.views.push_back((view, bytes));
        self.bytes += bytes;
        let mut leaving = Vec::new();
        while self.bytes > MOST_BYTES
            && let Some((view, bytes)) = self.views.pop_front()
        {
            self.bytes -= bytes;
            leaving.push(view);
        }
        leaving
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct View(AtomicBool);

    impl Warm for View {
        fn cool(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let views: Vec<Arc<View>> = (0..5).map(|_| Arc::default()).collect();
        let mut line = Line::default();
        for view in &views {
            let view: Arc<dyn Warm> = view.clone();
            let leaving = line.push(Arc::downgrade(&view), MOST_BYTES / 3);
            leaving.iter().filter_map(Weak::upgrade).for_each(|view| view.cool());
        }
        let cooled: Vec<bool> = views.iter().map(|view| view.0.load(Ordering::Relaxed)).collect();
        assert_eq!(cooled, [true, true, false, false, false]);
    }
}
