//! Pages by key: the rows after a marker, one more than asked for, so that the last page is known to be the last.

use datastore_api::{Page, PageRequest};
use mysql_async::Value;

/// The end of a list query whose rows are ordered by the bytes of `key`, and its bound values.
pub(super) fn clauses(key: &str, page: &PageRequest, filter: &str, mut values: Vec<Value>) -> (String, Vec<Value>) {
    let mut sql = format!(" WHERE {filter}");
    if let Some(marker) = &page.marker {
        let relation = if page.include_marker { ">=" } else { ">" };
        sql.push_str(&format!(" AND CAST({key} AS BINARY) {relation} CAST(? AS BINARY)"));
        values.push(marker.as_str().into());
    }
    sql.push_str(&format!(" ORDER BY CAST({key} AS BINARY)"));
    if let Some(limit) = page.limit {
        sql.push_str(" LIMIT ?");
        values.push((u64::from(limit) + 1).into());
    }
    (sql, values)
}

/// The page of such rows; `key` is that of a row.
pub(super) fn cut<R>(mut rows: Vec<R>, limit: Option<u32>, key: impl Fn(&R) -> String) -> Page<R> {
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_marker = rows.last().filter(|_| more).map(key);
    Page {
        items: rows,
        next_marker,
    }
}
