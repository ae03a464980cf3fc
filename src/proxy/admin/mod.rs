//! The proxy's own pages under `/-/`, which is never forwarded. Open to all: they tell nothing that
//! is worth hiding, and probes come from elsewhere.

use http::{Method, StatusCode};

use crate::http1::error::HttpError;

/// What the pages tell about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Configurations that are available, and how many there are.
    pub remaining: (usize, usize),
    pub is_stopping: bool,
}

/// A page, as JSON.
#[derive(Debug)]
pub struct AdminResponse {
    pub status: StatusCode,
    pub body: String,
}

/// The page at `path`; `None` where the path is not under `/-/`.
///
/// # Errors
/// No such page, or a method other than GET and HEAD.
pub fn page(
    path: &[u8],
    method: &Method,
    status: Readiness,
) -> Option<Result<AdminResponse, HttpError>> {
    let name = path
        .strip_prefix(b"/-/")
        .or_else(|| (path == b"/-").then_some(b""))?;
    let is_known = matches!(name, b"health" | b"ready");
    if is_known && method != Method::GET && method != Method::HEAD {
        let error = HttpError::method_not_allowed("pages under /-/ take GET only");
        return Some(Err(error));
    }
    let (available, total) = status.remaining;
    let configurations = format!(r#"{{"available":{available},"total":{total}}}"#);
    let version = env!("CARGO_PKG_VERSION");
    Some(match name {
        b"health" => Ok(AdminResponse {
            status: StatusCode::OK,
            body: format!(
                r#"{{"status":"ok","version":"{version}","configurations":{configurations}}}"#
            ),
        }),
        b"ready" => {
            let (code, word) = match (status.is_stopping, available) {
                (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
                (false, 0) => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "no configuration available",
                ),
                (false, _) => (StatusCode::OK, "ready"),
            };
            let body = format!(r#"{{"status":"{word}","configurations":{configurations}}}"#);
            Ok(AdminResponse { status: code, body })
        }
        _ => Err(HttpError::not_found(
            "there is no such page; there are /-/health and /-/ready",
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, remaining: (usize, usize), is_stopping: bool) -> Option<u16> {
        let status = Readiness {
            remaining,
            is_stopping,
        };
        page(path.as_bytes(), &Method::GET, status).map(|page| {
            page.map_or_else(|error| error.status.as_u16(), |page| page.status.as_u16())
        })
    }

    #[test]
    fn health_is_ok_as_long_as_it_answers_and_ready_needs_a_configuration() {
        assert_eq!(ask("/-/health", (0, 3), true), Some(200));
        assert_eq!(ask("/-/ready", (1, 3), false), Some(200));
        assert_eq!(ask("/-/ready", (0, 3), false), Some(503));
        assert_eq!(ask("/-/ready", (3, 3), true), Some(503));
    }

    #[test]
    fn nothing_under_the_prefix_is_forwarded() {
        assert_eq!(ask("/-/secrets", (1, 1), false), Some(404));
        assert_eq!(ask("/-/", (1, 1), false), Some(404));
        assert_eq!(ask("/-", (1, 1), false), Some(404));
        assert_eq!(ask("/-x", (1, 1), false), None);
        assert_eq!(ask("/v1/-/health", (1, 1), false), None);
        let status = Readiness {
            remaining: (1, 1),
            is_stopping: false,
        };
        let posted = page(b"/-/health", &Method::POST, status).unwrap();
        assert_eq!(posted.unwrap_err().code, "method_not_allowed");
    }
}
