//! How chains of several servers and timelines make one history: which goes on where another one forks. Pure.

use super::shelf::Chain;
use datastore_api::{Mark, Run};

/// A state of the data: the last transaction of each domain. Who wrote it may be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub domain: u32,
    pub writer: Option<u32>,
    pub number: u64,
}

impl From<Mark> for Point {
    fn from(mark: Mark) -> Self {
        Self {
            domain: mark.domain,
            writer: Some(mark.writer),
            number: mark.number,
        }
    }
}

/// A chain as far as histories are concerned.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// The last transactions before it, as far as they are known.
    pub before: Vec<Mark>,
    /// Its transactions.
    pub runs: Vec<Run>,
    /// The last transactions at its end.
    pub after: Vec<Mark>,
    /// When its last piece was read, in milliseconds: the newest one is the present.
    pub read_at: u64,
}

impl Line {
    pub fn of(chain: &Chain) -> Self {
        let mut line = Self::default();
        for piece in &chain.pieces {
            let stretch = &piece.header.stretch;
            if line.read_at == 0 {
                line.before.clone_from(&stretch.before);
            }
            for run in &stretch.runs {
                datastore_api::push_run(&mut line.runs, *run);
            }
            line.after.clone_from(&stretch.after);
            line.read_at = line.read_at.max(piece.header.read_at).max(1);
        }
        line
    }

    /// Where it begins. For a domain of which it was not said what came before, the number before its first transaction.
    pub fn start(&self) -> Vec<Point> {
        let mut start: Vec<Point> = self.before.iter().map(|mark| Point::from(*mark)).collect();
        for run in &self.runs {
            if !start.iter().any(|point| point.domain == run.domain) && run.first > 1 {
                start.push(Point {
                    domain: run.domain,
                    writer: None,
                    number: run.first - 1,
                });
            }
        }
        start
    }

    /// Whether data in this state can go on with it: it has, or begins after, exactly these transactions.
    pub fn contains(&self, state: &[Point]) -> bool {
        let knows = |domain: u32| {
            self.before.iter().any(|mark| mark.domain == domain) || self.runs.iter().any(|run| run.domain == domain)
        };
        // What came before it must be in the data.
        let is_behind = self
            .start()
            .iter()
            .all(|start| state.iter().any(|point| point.domain == start.domain));
        let has = |point: &Point| {
            let fits = |domain: u32, writer: u32| domain == point.domain && point.writer.is_none_or(|wanted| wanted == writer);
            let in_runs = self
                .runs
                .iter()
                .any(|run| fits(run.domain, run.writer) && (run.first..=run.last).contains(&point.number));
            let at_start = self.start().iter().any(|start| {
                let same_writer = start.writer.is_none() || point.writer.is_none() || start.writer == point.writer;
                start.domain == point.domain && start.number == point.number && same_writer
            });
            in_runs || at_start
        };
        let known: Vec<&Point> = state.iter().filter(|point| knows(point.domain)).collect();
        let is_empty = state.is_empty() && self.before.is_empty();
        is_behind && known.iter().all(|point| has(point)) && (is_empty || !known.is_empty())
    }

    /// Whether a transaction is in it.
    pub fn has(&self, mark: Mark) -> bool {
        self.runs.iter().any(|run| run.has(mark))
    }
}

/// A part of the way: a line, and up to where it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leg {
    /// Index of the line.
    pub line: usize,
    /// Only transactions up to these; empty: all.
    pub good_to: Vec<Point>,
}

/// The way from a state of the data through lines to the end of the line `goal`; `None` if transactions are missing somewhere.
pub(super) fn way(lines: &[Line], from: &[Point], goal: usize) -> Option<Vec<Leg>> {
    search(lines, from, goal, &mut vec![goal]).map(|mut legs| {
        legs.push(Leg {
            line: goal,
            good_to: Vec::new(),
        });
        legs
    })
}

/// The legs before `goal`.
fn search(lines: &[Line], from: &[Point], goal: usize, passed: &mut Vec<usize>) -> Option<Vec<Leg>> {
    if lines[goal].contains(from) {
        return Some(Vec::new());
    }
    let start = lines[goal].start();
    for index in predecessors(lines, goal) {
        if passed.contains(&index) {
            continue;
        }
        passed.push(index);
        // Data that are beyond the fork have what the goal never had.
        let is_beyond = from
            .iter()
            .any(|point| start.iter().any(|s| s.domain == point.domain && s.number < point.number));
        if let Some(mut legs) = (!is_beyond).then(|| search(lines, from, index, passed)).flatten() {
            legs.push(Leg {
                line: index,
                good_to: start,
            });
            return Some(legs);
        }
    }
    None
}

/// Lines that another one goes on from, the newest first.
pub(super) fn predecessors(lines: &[Line], goal: usize) -> Vec<usize> {
    let start = lines[goal].start();
    let mut found: Vec<usize> = (0..lines.len())
        .filter(|index| *index != goal && !start.is_empty() && lines[*index].contains(&start))
        .collect();
    found.sort_by_key(|index| std::cmp::Reverse(lines[*index].read_at));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(before: &[(u32, u64)], runs: &[(u32, u64, u64)], read_at: u64) -> Line {
        let runs: Vec<Run> = runs
            .iter()
            .map(|(writer, first, last)| Run {
                domain: 0,
                writer: *writer,
                first: *first,
                last: *last,
            })
            .collect();
        let mark = |(writer, number): &(u32, u64)| Mark {
            domain: 0,
            writer: *writer,
            number: *number,
        };
        Line {
            before: before.iter().map(mark).collect(),
            after: runs.last().map(|run| mark(&(run.writer, run.last))).into_iter().collect(),
            runs,
            read_at,
        }
    }

    fn at(writer: u32, number: u64) -> Vec<Point> {
        vec![Point {
            domain: 0,
            writer: Some(writer),
            number,
        }]
    }

    fn lines_of(way: Option<Vec<Leg>>) -> Vec<usize> {
        way.unwrap_or_default().iter().map(|leg| leg.line).collect()
    }

    #[test]
    fn a_failover_is_no_gap() {
        // Server 1 had two transactions nobody else had; server 2 went on after 10.
        let lines = [line(&[], &[(1, 1, 12)], 5), line(&[(1, 4)], &[(1, 5, 10), (2, 11, 30)], 9)];
        assert_eq!(lines_of(way(&lines, &at(1, 7), 1)), [1]);
        let over = way(&lines, &at(1, 2), 1).unwrap();
        assert_eq!(lines_of(Some(over.clone())), [0, 1]);
        assert_eq!(over[0].good_to, at(1, 4));
        assert_eq!(way(&lines, &at(1, 12), 1), None, "what only the old source had");
        assert_eq!(lines_of(way(&lines, &at(1, 3), 0)), [0]);
        assert_eq!(way(&lines, &at(2, 20), 0), None);
    }

    #[test]
    fn what_was_taken_back_is_left_out() {
        let lines = [line(&[], &[(1, 1, 100)], 5), line(&[(1, 97)], &[(1, 98, 120)], 9)];
        let over = way(&lines, &at(1, 50), 1).unwrap();
        assert_eq!(over[0].good_to, at(1, 97));
        assert_eq!(lines_of(Some(over)), [0, 1]);
    }

    #[test]
    fn a_gap_is_none_to_be_crossed() {
        let lines = [line(&[], &[(1, 1, 100)], 5), line(&[(1, 120)], &[(1, 121, 130)], 9)];
        assert_eq!(way(&lines, &at(1, 50), 1), None);
        assert!(predecessors(&lines, 1).is_empty());
        assert_eq!(lines_of(way(&lines, &at(1, 120), 1)), [1]);
        assert_eq!(way(&lines, &at(1, 110), 1), None);
        assert_eq!(way(&lines, &at(3, 120), 1), None, "the same number of another writer");
    }

    #[test]
    fn a_log_that_was_begun_anew_is_joined_by_its_numbers() {
        // After a restore the log is empty and does not say what came before.
        let lines = [line(&[], &[(1, 1, 100)], 5), line(&[], &[(1, 61, 70)], 9)];
        let over = way(&lines, &at(1, 10), 1).unwrap();
        assert_eq!((over[0].line, over[0].good_to[0].number), (0, 60));
        assert_eq!(lines_of(way(&lines, &at(1, 60), 1)), [1]);
        assert_eq!(way(&lines, &[], 0).map(|legs| legs.len()), Some(1), "from nothing");
        assert_eq!(lines_of(way(&lines, &[], 1)), [0, 1]);
        assert_eq!(way(&[line(&[], &[(1, 5, 9)], 1)], &[], 0), None);
    }
}
