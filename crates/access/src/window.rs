//! A count over a window of time that moves.

/// Parts a window is counted in, one of them the present one, which is not over.
const PARTS: usize = 10;

/// How many there were in the window of time before now, never fewer: the window is counted in ninths, and the ninth that
/// is partly out of it counts as a whole. What is counted is thus forgotten after one window, or a ninth of it later.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    /// The number of the newest part.
    newest: u32,
    /// From the newest part to the oldest.
    counts: [u16; PARTS],
}

/// How long a window is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    part_ms: i64,
}

impl Span {
    pub(crate) const fn of_ms(window: i64) -> Span {
        let parts = PARTS as i64 - 1;
        Span { part_ms: if window < parts { 1 } else { (window + parts - 1) / parts } }
    }

    /// The part this moment is in. Only differences count, so that it may wrap.
    fn part(self, now: i64) -> u32 {
        now.div_euclid(self.part_ms) as u32
    }
}

impl Window {
    /// How many are in the window now.
    pub(crate) fn count(&self, span: Span, now: i64) -> u32 {
        let mut then = *self;
        then.move_to(span.part(now));
        then.counts.iter().copied().map(u32::from).sum()
    }

    /// One more.
    pub(crate) fn add(&mut self, span: Span, now: i64) {
        self.move_to(span.part(now));
        self.counts[0] = self.counts[0].saturating_add(1);
    }

    /// One less: the newest was none.
    pub(crate) fn take_back(&mut self, span: Span, now: i64) {
        self.move_to(span.part(now));
        if let Some(newest) = self.counts.iter_mut().find(|count| **count > 0) {
            *newest -= 1;
        }
    }

    /// Whether anything was counted here later than there.
    pub(crate) fn is_newer_than(&self, other: &Window) -> bool {
        self.newest.wrapping_sub(other.newest).cast_signed() > 0
    }

    fn move_to(&mut self, part: u32) {
        let ahead = part.wrapping_sub(self.newest).cast_signed();
        match usize::try_from(ahead) {
            Ok(ahead) if ahead < PARTS => {
                self.counts.copy_within(..PARTS - ahead, ahead);
                self.counts[..ahead].fill(0);
            }
            // A clock that was set back a little stands still; set back by more than a window it begins anew, or what was
            // counted would stay until it has caught up.
            Err(_) if ahead.unsigned_abs() < PARTS as u32 => return,
            _ => self.counts = [0; PARTS],
        }
        self.newest = part;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: i64 = 900;
    const SPAN: Span = Span::of_ms(WINDOW);

    #[test]
    fn what_was_counted_is_forgotten_after_a_window_and_a_ninth_at_most() {
        let mut window = Window::default();
        window.add(SPAN, 950);
        assert_eq!(window.count(SPAN, 950 + WINDOW), 1);
        assert_eq!(window.count(SPAN, 950 + WINDOW + WINDOW / 9), 0);
        window.add(SPAN, 5_000);
        window.take_back(SPAN, 5_100);
        assert_eq!(window.count(SPAN, 5_100), 0);
        window.take_back(SPAN, 5_100);
        assert_eq!(window.count(SPAN, 5_100), 0, "there is nothing to take back");
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_long() {
        let mut window = Window::default();
        window.add(SPAN, 1_000_000);
        assert_eq!(window.count(SPAN, 1_000_000 - 300), 1);
        assert_eq!(window.count(SPAN, 5_000), 0);
    }

    proptest! {
        /// Against every single moment remembered.
        #[test]
        fn it_never_counts_fewer_than_there_were(steps in prop::collection::vec(0i64..400, 1..60), start in 0i64..2_000) {
            let (mut window, mut moments, mut now) = (Window::default(), Vec::new(), start);
            for step in steps {
                now += step;
                window.add(SPAN, now);
                moments.push(now);
                let within = |length| moments.iter().filter(|moment| now - **moment < length).count() as u32;
                let counted = window.count(SPAN, now);
                prop_assert!(counted >= within(WINDOW) && counted <= within(WINDOW + WINDOW / 9 + 1));
            }
        }
    }
}
