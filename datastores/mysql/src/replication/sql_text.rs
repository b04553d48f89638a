//! The text that the log tool makes, made fit to be applied by a person. Pure.

/// Lines that would give a transaction its old id: on a server that has moved on that is refused, and its author would not take it back.
const OLD_IDS: [&[u8]; 2] = [
    b"/*M!100001 SET @@session.server_id=",
    b"/*M!100001 SET @@session.gtid_seq_no=",
];

/// Drops lines that begin with one of [`OLD_IDS`]. Lines of any length pass in pieces.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// The beginning of a line that is not decided yet.
    head: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    Keeps,
    Drops,
}

impl Filter {
    /// Adds to `kept` what is kept of the next bytes; no bytes: the end, what is undecided is kept.
    pub fn pass(&mut self, bytes: &[u8], kept: &mut Vec<u8>) {
        if bytes.is_empty() {
            kept.append(&mut self.head);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match self.state {
                State::LineStart => self.begin(piece, kept),
                State::Keeps => kept.extend_from_slice(piece),
                State::Drops => {}
            }
            if piece.ends_with(b"\n") {
                self.state = State::LineStart;
            }
        }
    }

    fn begin(&mut self, piece: &[u8], kept: &mut Vec<u8>) {
        self.head.extend_from_slice(piece);
        let head = self.head.as_slice();
        if OLD_IDS.iter().any(|old| head.starts_with(old)) {
            self.head.clear();
            self.state = State::Drops;
        } else if head.ends_with(b"\n") || !OLD_IDS.iter().any(|old| old.starts_with(head)) {
            kept.append(&mut self.head);
            self.state = State::Keeps;
        }
    }
}

/// A time as `2026-11-22T18:59:49Z`.
pub(super) fn utc(seconds: u64) -> String {
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let leaps = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leaps(year)) {
        days -= 365 + u64::from(leaps(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(leaps(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ids_are_dropped_wherever_the_pieces_end() {
        let text = b"# at 4\n/*M!100001 SET @@session.gtid_domain_id=0*//*!*/;\n/*M!100001 SET @@session.server_id=1*//*!*/;\n\
                     /*M!100001 SET @@session.gtid_seq_no=4*//*!*/;\nINSERT '/*M!100001 SET @@session.server_id=1'\n/*M!10000";
        let wanted = b"# at 4\n/*M!100001 SET @@session.gtid_domain_id=0*//*!*/;\n\
                       INSERT '/*M!100001 SET @@session.server_id=1'\n/*M!10000";
        for size in 1..text.len() {
            let (mut filter, mut kept) = (Filter::default(), Vec::new());
            for piece in text.chunks(size) {
                filter.pass(piece, &mut kept);
            }
            filter.pass(&[], &mut kept);
            assert_eq!(kept, wanted, "pieces of {size}");
        }
    }

    #[test]
    fn times_are_what_a_calendar_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_795_376_530, "2026-11-22T19:42:10Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
