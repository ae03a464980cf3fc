//! The proxy's own pages under `/-/`, which is never forwarded. They tell nothing secret.

use http::Method;

mod health;
pub mod look;
mod metrics;
mod page;
mod status;

use self::look::{AdminResponse, Look};
use crate::http1::error::HttpError;

/// A page by its name behind `/-/`.
struct Route {
    name: &'static str,
    /// Health checks come from elsewhere, under any name.
    is_open_to_all: bool,
    show: fn(&Look<'_>) -> AdminResponse,
}

const ROUTES: &[Route] = &[
    Route {
        name: "",
        is_open_to_all: false,
        show: |_| page::page(),
    },
    Route {
        name: "health",
        is_open_to_all: true,
        show: health::health,
    },
    Route {
        name: "ready",
        is_open_to_all: true,
        show: health::ready,
    },
    Route {
        name: "status",
        is_open_to_all: false,
        show: status::status,
    },
    Route {
        name: "metrics",
        is_open_to_all: false,
        show: metrics::metrics,
    },
];

/// Whether `path` is a page that is open to all.
pub fn is_open_to_all(path: &[u8]) -> bool {
    let name = path.strip_prefix(b"/-/");
    let route = name.and_then(route);
    route.is_some_and(|route| route.is_open_to_all)
}

fn route(name: &[u8]) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.name.as_bytes() == name)
}

/// The page at `path`; `None` where the path is not under `/-/`. `check` decides whether the caller may
/// see one that is not open to all.
///
/// # Errors
/// No such page, a method other than GET and HEAD, a caller that may not see it.
pub fn page(
    path: &[u8],
    method: &Method,
    check: impl FnOnce() -> Result<(), HttpError>,
    look: &Look<'_>,
) -> Option<Result<AdminResponse, HttpError>> {
    if path == b"/-" {
        return Some(Err(not_found()));
    }
    let name = path.strip_prefix(b"/-/")?;
    Some(match route(name) {
        Some(_) if method != Method::GET && method != Method::HEAD => Err(
            HttpError::method_not_allowed("pages under /-/ take GET only"),
        ),
        Some(route) if route.is_open_to_all => Ok((route.show)(look)),
        Some(route) => check().map(|()| (route.show)(look)),
        None => Err(not_found()),
    })
}

fn not_found() -> HttpError {
    let names: Vec<_> = ROUTES
        .iter()
        .map(|route| format!("/-/{}", route.name))
        .collect();
    HttpError::not_found(format!(
        "there is no such page; there are {}",
        names.join(", ")
    ))
}
