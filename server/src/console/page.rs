//! The page itself, what its reasons mean, and files of captures.

use std::path::{Component, Path as FilePath, PathBuf};

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use brisq_api::{ApiError, ErrorCode, Reason};
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use crate::error::{Failure, HandlerResult};
use crate::state::App;

/// All of it is one answer: it loads nothing more, and its policy needs to let nothing more in.
const PAGE: &str = concat!(
    include_str!("page.html"),
    "<script>\n",
    include_str!("page.js"),
    include_str!("queues.js"),
    include_str!("tasks.js"),
    "</script>\n</body>\n</html>\n"
);
/// Largest file of a bundle that is served.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

pub async fn page() -> Response {
    // In no frame of another page, whose clicks would be its own.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)], PAGE).into_response()
}

/// What a reason of an explanation means, and what to do about it.
pub async fn reason(Path(name): Path<String>) -> HandlerResult {
    let known = Reason::ALL.iter().find(|reason| reason.as_str() == name);
    let reason = known.ok_or_else(|| {
        Failure(ApiError::new(ErrorCode::NotFound, "No explanation has this reason.").with("reason", &name))
    })?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], reason.page()).into_response())
}

/// A file of a bundle. Reports are self-contained and run no foreign script, which the policy states once more.
pub async fn capture_file(State(app): State<App>, Path(path): Path<String>) -> HandlerResult {
    let missing = || {
        Failure(
            ApiError::new(ErrorCode::NotFound, "There is no such file in the captures.").with("path", &path),
        )
    };
    let root = app.console.captures.as_deref().ok_or_else(missing)?;
    let file = inside(root, &path).ok_or_else(missing)?;
    let small =
        tokio::fs::metadata(&file).await.is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_MAX_BYTES);
    if !small {
        return Err(missing());
    }
    let bytes = tokio::fs::read(&file).await.map_err(|_| missing())?;
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: 'self'";
    Ok(([(CONTENT_TYPE, content_type(&file)), (CONTENT_SECURITY_POLICY, policy)], bytes).into_response())
}

/// The path below `root`, if it does not leave it.
fn inside(root: &FilePath, path: &str) -> Option<PathBuf> {
    let path = FilePath::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| root.join(path))
}

fn content_type(file: &FilePath) -> &'static str {
    match file.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("jsonl" | "folded") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use brisq_model::DeadReason;

    use super::*;

    #[test]
    fn a_redrive_can_name_every_reason() {
        for reason in DeadReason::ALL {
            assert!(PAGE.contains(&format!("<option>{}</option>", reason.name())), "{}", reason.name());
        }
    }

    #[test]
    fn no_text_is_read_as_markup() {
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
            assert!(!PAGE.contains(way), "{way}");
        }
    }

    #[test]
    fn no_path_leaves_the_captures() {
        let root = FilePath::new("captures");
        assert!(inside(root, "2026-11-23/orders-1-1/report.html").is_some());
        for bad in ["../tokens.yaml", "a/../../b", "/etc/passwd", "./x/.."] {
            assert!(inside(root, bad).is_none(), "{bad}");
        }
    }
}
