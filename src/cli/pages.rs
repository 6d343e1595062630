//! Lists of the admin API as commands read them: all pages, one after the other.

use super::{server::Server, wire::AdminRequest};
use anyhow::bail;
use serde_json::Value;

/// Pages of one list; a server that sends more goes round in circles.
const PAGES_MAX: usize = 10_000;

impl Server {
    /// All entries of the list at `path`, which are the member `name` of its pages.
    ///
    /// # Errors
    /// As [`Server::json`], of any page.
    pub(super) fn entries(&self, path: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        let (mut entries, mut next) = (Vec::new(), path.to_owned());
        for _ in 0..PAGES_MAX {
            let mut page = self.json(AdminRequest::get(&next))?;
            if let Value::Array(more) = page[name].take() {
                entries.extend(more);
            }
            // A server of an older version has one page.
            let Some(cursor) = page["next_cursor"].as_str() else { return Ok(entries) };
            let cursor: String = form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
            next = format!("{path}?cursor={cursor}");
        }
        bail!("{path} of adsproxy at {self} has no last page")
    }
}
