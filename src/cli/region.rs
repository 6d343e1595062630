//! The region of a flag.

use crate::{id::Region, provider::ads};

/// The region that a flag's text means: a name, a marketplace, an API host.
pub(super) fn flag(text: &str) -> Result<Region, &'static str> {
    ads::region(text).ok_or(ads::REGION_SPELLING)
}
