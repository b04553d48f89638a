//! What ends a transaction, and what does not.

use super::*;
use crate::log::event::{HEADER, MAGIC};

/// An event without a checksum.
fn event(kind: u8, server: u32, time: u32, body: &[u8]) -> Vec<u8> {
    let mut event = time.to_le_bytes().to_vec();
    event.push(kind);
    event.extend(server.to_le_bytes());
    event.extend(((HEADER + body.len()) as u32).to_le_bytes());
    event.extend([0; 6]);
    event.extend(body);
    event
}

fn format() -> Format {
    let mut body = vec![0; 57 + 40];
    body.extend([0, 0, 0, 0, 0]);
    Format::read(&event(kind::FORMAT, 1, 7, &body)).unwrap()
}

fn gtid(number: u64, is_standalone: bool) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend(0u32.to_le_bytes());
    body.extend([u8::from(is_standalone), 0, 0, 0, 0, 0, 0]);
    event(kind::GTID, 9, number as u32 + 100, &body)
}

fn query(text: &str) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.push(4);
    body.extend([0, 0]);
    body.extend(3u16.to_le_bytes());
    body.extend([1, 2, 3]);
    body.extend(b"shop\0");
    body.extend(text.as_bytes());
    event(kind::QUERY, 9, 0, &body)
}

fn walk(events: &[Vec<u8>], inside: bool) -> Walked {
    Walked::over(&events.concat(), &format(), &mut Walker::new(inside), &mut Marks::new())
}

#[test]
fn transactions_end_where_the_server_ends_them() {
    let row = event(30, 9, 0, &[0; 20]);
    let map = event(kind::TABLE_MAP, 9, 0, &[0; 20]);
    let xid = event(kind::XID, 9, 0, &[0; 8]);
    for group in [
        vec![gtid(1, false), map.clone(), row.clone(), xid.clone()],
        vec![gtid(1, false), query("insert into t values (1)"), query("COMMIT")],
        vec![gtid(1, false), query("savepoint a"), row.clone(), query("ROLLBACK")],
        vec![gtid(1, true), query("create table t (n int)")],
        vec![gtid(1, true), event(kind::INTVAR, 9, 0, &[0; 9]), query("drop table t")],
        vec![
            gtid(1, false),
            query("XA END X'71',X'',1"),
            event(kind::XA_PREPARE, 9, 0, &[0; 8]),
        ],
        vec![gtid(1, false), query("create table c (n int)"), map, row, xid],
    ] {
        let whole = walk(&group, false);
        assert_eq!((whole.border, whole.transactions), (group.concat().len(), 1), "{group:?}");
        assert_eq!(whole.times, Some((101, 101)));
        for cut in 0..group.concat().len() {
            let part = Walked::over(&group.concat()[..cut], &format(), &mut Walker::new(false), &mut Marks::new());
            assert_eq!((part.border, part.transactions, part.bad), (0, 0, None), "{cut}");
        }
        let two = [group.clone(), vec![gtid(2, true), query("drop table c")]].concat();
        let runs = walk(&two, false).runs;
        assert_eq!((runs.len(), runs[0].first, runs[0].last), (1, 1, 2));
    }
}

#[test]
fn a_transaction_that_is_read_from_its_middle_ends_too() {
    let rest = [query("insert"), event(kind::XID, 9, 0, &[0; 8]), gtid(5, true), query("drop")];
    let walked = walk(&rest, true);
    assert_eq!((walked.border, walked.transactions), (rest.concat().len(), 2));
    assert_eq!(walked.runs.len(), 1);
}

#[test]
fn what_is_no_event_ends_the_walk() {
    let good = [gtid(1, true), query("x")].concat();
    let mut bytes = good.clone();
    bytes.extend([0; 40]);
    let walked = Walked::over(&bytes, &format(), &mut Walker::new(false), &mut Marks::new());
    assert_eq!(walked.border, good.len());
    assert!(walked.bad.is_some());
    // A file that ends in the middle of a transaction without the server having died.
    assert!(walk(&[gtid(1, false), event(kind::STOP, 9, 0, &[])], false).bad.is_some());
    assert!(walk(&[event(kind::ROTATE, 9, 0, &[0; 12])], false).ends_file);
    assert_eq!(MAGIC.len(), 4);
}
