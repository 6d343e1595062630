//! The style, the script and the icon of the pages, under names that change with what is in them.

use crate::{
    admin::{
        AdminCall,
        respond::{Handled, reply},
    },
    login::key_of,
    problem::{Code, Problem},
};
use http::{HeaderValue, StatusCode, header::CACHE_CONTROL};
use std::sync::LazyLock;

pub(super) struct Asset {
    pub(super) path: String,
    content_type: &'static str,
    text: &'static str,
}

pub(super) struct Assets {
    pub(super) style: Asset,
    pub(super) script: Asset,
    pub(super) icon: Asset,
}

pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: Asset::new("css", "text/css; charset=utf-8", include_str!("style.css")),
    script: Asset::new("js", "text/javascript; charset=utf-8", include_str!("script.js")),
    icon: Asset::new("svg", "image/svg+xml", include_str!("icon.svg")),
});

impl Asset {
    fn new(extension: &str, content_type: &'static str, text: &'static str) -> Self {
        let hash = &key_of(text)[..16];
        Self { path: format!("/dashboard/assets/{hash}.{extension}"), content_type, text }
    }
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    let Assets { style, script, icon } = &*ASSETS;
    let is_named = |asset: &&Asset| asset.path.rsplit('/').next() == Some(call.segment.as_str());
    let Some(asset) = [style, script, icon].into_iter().find(is_named) else {
        let detail = "There is nothing at this path.";
        return Ok(Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id));
    };
    let mut response = reply(StatusCode::OK, asset.content_type, asset.text.to_owned());
    let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, for_ever);
    Ok(response)
}
