//! To which moments recovery is possible, and the way there: all of it from the store and the backups' manifests.

use super::history::{Leg, Line, Point, predecessors, way};
use super::segment::Header;
use super::shelf::{Chain, Piece, Shelf};
use crate::backup::BackupError;
use datastore_api::{LogBreak, Logs, Mark, Position, Until};
use serde::{Deserialize, Serialize};

/// A backup that a log can be replayed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its id.
    pub id: String,
    /// When its data were what they are: its end, in seconds since 1970.
    pub finished: u64,
    /// The transactions in it.
    pub position: Position,
}

/// Where to recover to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everything there is.
    Latest,
    /// What was committed before this time, in seconds since 1970.
    Time(u64),
    /// Up to this transaction, with it.
    Including(String),
    /// Up to this transaction, without it.
    Before(String),
}

/// Moments to which recovery is possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The oldest one, in seconds since 1970.
    pub from: u64,
    /// The newest one.
    pub to: u64,
    /// The transactions of the oldest backup of it.
    pub from_position: Position,
    /// The newest transactions.
    pub to_position: Position,
    /// The backups that it rests on, oldest first.
    pub backups: Vec<String>,
    /// It is the present history; others end at a fork.
    pub is_present: bool,
}

/// Where the log has a hole, or begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Whose log.
    pub guest: String,
    /// In which timeline it goes on.
    pub timeline: u64,
    /// When it goes on, in seconds since 1970.
    pub at: u64,
    /// After which transactions it goes on; what lies between these and the log before is missing.
    pub position: Position,
    /// Why.
    pub why: LogBreak,
    /// The same for people.
    pub text: String,
}

/// The window of recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The present history first.
    pub spans: Vec<Span>,
    /// Holes, oldest first. The beginning of a log is none.
    pub gaps: Vec<Gap>,
    /// Until when the log is there, whether or not a backup lies under it, in seconds since 1970.
    pub log_to: Option<u64>,
    /// Objects and bytes of the log.
    pub objects: u64,
    /// Bytes of it as it was read from the server.
    pub bytes: u64,
}

/// A way to a target: the backup to restore, and the log to replay over it with a [`super::Replay`].
#[derive(Debug, Clone)]
pub struct Plan {
    /// The backup.
    pub base: String,
    /// Where to stop.
    pub until: Until,
    /// Bytes of log that will come.
    pub bytes: u64,
    pub(super) pieces: Vec<(Piece, Vec<Mark>)>,
}

struct Known {
    chains: Vec<Chain>,
    lines: Vec<Line>,
    /// Newest first.
    order: Vec<usize>,
}

async fn look(shelf: &Shelf, guests: &[String]) -> Result<Known, BackupError> {
    let mut chains = Vec::new();
    for guest in guests {
        chains.extend(shelf.chains(guest).await?);
    }
    let lines: Vec<Line> = chains.iter().map(Line::of).collect();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lines[*index].read_at));
    Ok(Known { chains, lines, order })
}

/// The window of recovery of a guest and its peers. `bases`: the backups that could be restored.
pub async fn window(logs: &dyn Logs, shelf: &Shelf, guests: &[String], bases: &[Base]) -> Result<Window, BackupError> {
    let known = look(shelf, guests).await?;
    let mut window = Window::default();
    let bases = sorted(logs, bases)?;
    let mut placed = vec![false; bases.len()];
    for goal in &known.order {
        let mut under: Vec<&(Base, Vec<Point>)> = Vec::new();
        for (at, base) in bases.iter().enumerate().rev() {
            if !placed[at] && way(&known.lines, &base.1, *goal).is_some() {
                placed[at] = true;
                under.insert(0, base);
            }
        }
        let Some((oldest, _)) = under.first() else { continue };
        window.spans.push(Span {
            from: oldest.finished,
            to: end_of(&known.chains[*goal]).max(oldest.finished),
            from_position: oldest.position.clone(),
            to_position: logs.position(&known.lines[*goal].after),
            backups: under.iter().map(|(base, _)| base.id.clone()).collect(),
            is_present: known.order.first() == Some(goal),
        });
    }
    let mut gaps: Vec<(u64, Gap)> = Vec::new();
    for (index, chain) in known.chains.iter().enumerate() {
        let Some(first) = chain.pieces.first().map(|piece| &piece.header) else {
            continue;
        };
        let is_first = !known.chains.iter().any(|other| begins(other) < begins(chain));
        if is_first || first.stretch.transactions == 0 && chain.pieces.len() == 1 || !predecessors(&known.lines, index).is_empty()
        {
            continue;
        }
        let start: Vec<Mark> = known.lines[index].start().into_iter().map(mark_of).collect();
        gaps.push((
            begins(chain),
            Gap {
                guest: chain.guest.clone(),
                timeline: first.timeline,
                at: first.stretch.times.map_or(first.read_at / 1000, |(from, _)| from),
                position: logs.position(&start),
                why: first.began.why,
                text: first.began.text.clone(),
            },
        ));
    }
    gaps.sort_by_key(|(begins, _)| *begins);
    window.gaps = gaps.into_iter().map(|(_, gap)| gap).collect();
    window.log_to = known.chains.iter().map(end_of).max();
    for header in known.chains.iter().flat_map(|chain| &chain.pieces).map(|piece| &piece.header) {
        window.objects += 1;
        window.bytes += header.stretch.to - header.stretch.from;
    }
    Ok(window)
}

/// The way to a target. `Invalid` names the window if the target lies outside.
pub async fn plan(
    logs: &dyn Logs,
    shelf: &Shelf,
    guests: &[String],
    bases: &[Base],
    target: &Target,
) -> Result<Plan, BackupError> {
    let known = look(shelf, guests).await?;
    let sorted = sorted(logs, bases)?;
    let until = until(logs, target)?;
    for goal in &known.order {
        let line = &known.lines[*goal];
        let is_there = match until {
            Until::End => true,
            Until::Time(time) => end_of(&known.chains[*goal]) >= time,
            Until::Including(mark) | Until::Before(mark) => line.has(mark),
        };
        if is_there {
            for (base, state) in sorted.iter().rev().filter(|(base, state)| is_before(base, state, until)) {
                if let Some(legs) = way(&known.lines, state, *goal) {
                    return Ok(made(&known, base, state, &legs, until));
                }
            }
        }
        if until == Until::End {
            // An older history is not what was asked for.
            break;
        }
    }
    let window = window(logs, shelf, guests, bases).await?;
    Err(BackupError::Invalid(outside(target, &window, bases)))
}

fn until(logs: &dyn Logs, target: &Target) -> Result<Until, BackupError> {
    let one = |text: &String| match logs.marks(&Position(text.clone())).as_deref() {
        Ok([mark]) => Ok(*mark),
        _ => Err(BackupError::Invalid(format!(
            "'{}' is no id of one transaction",
            text.escape_debug()
        ))),
    };
    Ok(match target {
        Target::Latest => Until::End,
        Target::Time(time) => Until::Time(*time),
        Target::Including(id) => Until::Including(one(id)?),
        Target::Before(id) => Until::Before(one(id)?),
    })
}

/// Whether a backup lies before the target.
fn is_before(base: &Base, state: &[Point], until: Until) -> bool {
    let number = |domain| {
        state
            .iter()
            .find(|point| point.domain == domain)
            .map_or(0, |point| point.number)
    };
    match until {
        Until::End => true,
        Until::Time(time) => base.finished <= time,
        Until::Including(mark) => number(mark.domain) <= mark.number,
        Until::Before(mark) => number(mark.domain) < mark.number,
    }
}

fn made(known: &Known, base: &Base, state: &[Point], legs: &[Leg], until: Until) -> Plan {
    let mut pieces = Vec::new();
    let had = |mark: &Mark| {
        state
            .iter()
            .any(|point| point.domain == mark.domain && point.number >= mark.number)
    };
    let mut is_over = false;
    for leg in legs {
        let good_to: Vec<Mark> = leg.good_to.iter().copied().map(mark_of).collect();
        for piece in &known.chains[leg.line].pieces {
            let header: &Header = &piece.header;
            let stretch = &header.stretch;
            // All of it is in the data, or none of it is good any more.
            let is_had = stretch.after.iter().all(had) && !stretch.ends_inside && !stretch.begins_inside;
            let is_beyond = !good_to.is_empty()
                && good_to.iter().all(|good| {
                    stretch
                        .before
                        .iter()
                        .any(|mark| mark.domain == good.domain && mark.number >= good.number)
                });
            if is_over || is_had || is_beyond {
                continue;
            }
            is_over = match until {
                Until::Including(mark) | Until::Before(mark) => {
                    stretch
                        .runs
                        .iter()
                        .any(|run| run.domain == mark.domain && run.last >= mark.number)
                        && leg.good_to.is_empty()
                }
                Until::Time(time) => stretch.times.is_some_and(|(_, newest)| newest >= time) && good_to.is_empty(),
                Until::End => false,
            };
            pieces.push((piece.clone(), good_to.clone()));
        }
    }
    Plan {
        base: base.id.clone(),
        until,
        bytes: pieces
            .iter()
            .map(|(piece, _)| piece.header.stretch.to - piece.header.stretch.from)
            .sum(),
        pieces,
    }
}

fn mark_of(point: Point) -> Mark {
    Mark {
        domain: point.domain,
        writer: point.writer.unwrap_or_default(),
        number: point.number,
    }
}

/// Backups with their states, oldest first.
fn sorted(logs: &dyn Logs, bases: &[Base]) -> Result<Vec<(Base, Vec<Point>)>, BackupError> {
    let mut sorted = Vec::new();
    for base in bases {
        let marks = logs.marks(&base.position).map_err(BackupError::Engine)?;
        sorted.push((base.clone(), marks.into_iter().map(Point::from).collect()));
    }
    sorted.sort_by_key(|(base, _): &(Base, Vec<Point>)| base.finished);
    Ok(sorted)
}

fn begins(chain: &Chain) -> u64 {
    chain.pieces.first().map_or(0, |piece| piece.header.read_at)
}

/// Until when a chain tells everything, in seconds since 1970.
fn end_of(chain: &Chain) -> u64 {
    let end = |piece: &Piece| {
        let newest = piece.header.stretch.times.map_or(0, |(_, newest)| newest);
        newest.max(piece.header.read_at / 1000)
    };
    chain.pieces.iter().map(end).max().unwrap_or_default()
}

/// The sentence for a target outside of the window.
fn outside(target: &Target, window: &Window, bases: &[Base]) -> String {
    let wanted = match target {
        Target::Latest => "the end of the log".to_owned(),
        Target::Time(time) => utc(*time),
        Target::Including(id) => format!("transaction {}", id.escape_debug()),
        Target::Before(id) => format!("the moment before transaction {}", id.escape_debug()),
    };
    let spans: Vec<String> = window
        .spans
        .iter()
        .map(|span| {
            format!(
                "{} ({}) to {} ({})",
                utc(span.from),
                span.from_position,
                utc(span.to),
                span.to_position
            )
        })
        .collect();
    let window = match (spans.is_empty(), bases.is_empty()) {
        (false, _) => format!("the window is {}", spans.join("; and ")),
        (true, true) => "there is no backup to begin with".to_owned(),
        (true, false) => "no log in the store goes on from any of the backups".to_owned(),
    };
    format!("{wanted} cannot be recovered: {window}")
}

/// A time as `2026-11-22T18:59:49Z`.
fn utc(seconds: u64) -> String {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    time.map_or_else(|| seconds.to_string(), |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}
