//! Pages of long lists: `?limit=` entries from `?cursor=` on, which the page before has named.

use super::arguments::Arguments;
use crate::login::LoginError;
use std::str::FromStr;

/// The query arguments, for the OpenAPI document.
pub(super) const ARGUMENTS: [(&str, &str); 2] = [
    ("limit", "How many entries at most, from 1 to 1000."),
    ("cursor", "`next_cursor` of the page before; absent for the first page."),
];

/// Entries on the longest page.
const LIMIT_MAX: usize = 1000;

/// Which entries a request asks for.
#[derive(Debug)]
pub(super) struct Paging<C> {
    pub(super) limit: usize,
    /// The last entry of the page before.
    pub(super) after: Option<C>,
}

impl<C: FromStr> Paging<C> {
    /// The page that `query` asks for; of `limit` entries, unless it says otherwise.
    pub(super) fn of(query: &Arguments, limit: usize) -> Result<Self, LoginError> {
        let limit = query.one("limit")?.map_or(Ok(limit), |text| text.parse());
        let limit = limit.ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit =
            limit.ok_or_else(|| LoginError::bad_request("limit is a number from 1 to 1000"))?;
        let after = query.one("cursor")?.map(|text| text.parse()).transpose();
        let after = after.map_err(|_| LoginError::bad_request("cursor is of no page before"))?;
        Ok(Self { limit, after })
    }

    /// The page itself, of `entries` that follow [`Paging::after`]; and the name of its last entry
    /// if there are more.
    pub(super) fn take<T>(
        &self,
        entries: impl Iterator<Item = T>,
        name: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let mut page: Vec<T> = entries.take(self.limit + 1).collect();
        let has_more = page.len() > self.limit;
        page.truncate(self.limit);
        let next = page.last().filter(|_| has_more).map(name);
        (page, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Option<(Vec<u64>, Option<String>)> {
        let paging = Paging::<u64>::of(&Arguments::of_form(query), 3).ok()?;
        let entries = (1..=5).filter(|entry| paging.after.is_none_or(|after| *entry > after));
        Some(paging.take(entries, u64::to_string))
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        assert_eq!(page("").expect("valid"), (vec![1, 2, 3], Some("3".to_owned())));
        assert_eq!(page("cursor=3").expect("valid"), (vec![4, 5], None));
        assert_eq!(page("cursor=2&limit=3").expect("valid"), (vec![3, 4, 5], None));
        assert_eq!(page("cursor=9").expect("valid"), (vec![], None));
        for wrong in ["limit=0", "limit=1001", "limit=x", "limit=-1", "cursor=x", "limit=1&limit=2"]
        {
            assert!(page(wrong).is_none(), "{wrong}");
        }
    }
}
