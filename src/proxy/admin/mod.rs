//! The proxy's own pages under `/-/`, which is never forwarded. They tell nothing secret.

use http::{Method, StatusCode};

use crate::http1::error::HttpError;

/// What the pages show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Configurations that are available, and how many there are.
    pub available: (usize, usize),
    /// No credential was accepted lately.
    pub is_degraded: bool,
    /// The secrets file on disk could be loaded.
    pub is_file_valid: bool,
    pub is_stopping: bool,
}

/// A page, as JSON.
#[derive(Debug)]
pub struct AdminResponse {
    pub status: StatusCode,
    pub body: String,
}

/// A page by its name behind `/-/`.
struct Route {
    name: &'static str,
    show: fn(&Readiness) -> AdminResponse,
}

const ROUTES: &[Route] = &[
    Route {
        name: "health",
        show: health,
    },
    Route {
        name: "ready",
        show: ready,
    },
];

/// Whether `path` is a page that is open to all: health checks come from elsewhere, under any name.
pub fn is_open_to_all(path: &[u8]) -> bool {
    let name = path.strip_prefix(b"/-/");
    name.is_some_and(|name| ROUTES.iter().any(|route| route.name.as_bytes() == name))
}

/// The page at `path`; `None` where the path is not under `/-/`.
///
/// # Errors
/// No such page, or a method other than GET and HEAD.
pub fn page(
    path: &[u8],
    method: &Method,
    readiness: Readiness,
) -> Option<Result<AdminResponse, HttpError>> {
    let name = path
        .strip_prefix(b"/-/")
        .or_else(|| (path == b"/-").then_some(b""))?;
    let route = ROUTES.iter().find(|route| route.name.as_bytes() == name);
    Some(match route {
        Some(_) if method != Method::GET && method != Method::HEAD => Err(
            HttpError::method_not_allowed("pages under /-/ take GET only"),
        ),
        Some(route) => Ok((route.show)(&readiness)),
        None => {
            let names: Vec<_> = ROUTES
                .iter()
                .map(|route| format!("/-/{}", route.name))
                .collect();
            let names = names.join(" and ");
            Err(HttpError::not_found(format!(
                "there is no such page; there are {names}"
            )))
        }
    })
}

/// 200 while the process serves.
fn health(readiness: &Readiness) -> AdminResponse {
    let version = env!("CARGO_PKG_VERSION");
    let configurations = configurations(readiness);
    AdminResponse {
        status: StatusCode::OK,
        body: format!(
            r#"{{"status":"ok","version":"{version}","configurations":{configurations}}}"#
        ),
    }
}

/// 200 unless the process stops. An instance that is taken out of service because its credentials are
/// rejected would get no request that could show that they work again.
fn ready(readiness: &Readiness) -> AdminResponse {
    let (status, word) = match (readiness.is_stopping, readiness.is_degraded) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, true) => (StatusCode::OK, "degraded"),
        (false, false) => (StatusCode::OK, "ready"),
    };
    let configurations = configurations(readiness);
    let is_file_valid = readiness.is_file_valid;
    AdminResponse {
        status,
        body: format!(
            r#"{{"status":"{word}","configurations":{configurations},"secrets_file_valid":{is_file_valid}}}"#
        ),
    }
}

fn configurations(readiness: &Readiness) -> String {
    let (available, total) = readiness.available;
    format!(r#"{{"available":{available},"total":{total}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Readiness = Readiness {
        available: (1, 2),
        is_degraded: false,
        is_file_valid: true,
        is_stopping: false,
    };

    fn ask(method: &Method, path: &str, readiness: Readiness) -> (u16, String) {
        match page(path.as_bytes(), method, readiness) {
            Some(Ok(page)) => (page.status.as_u16(), page.body),
            Some(Err(error)) => (error.status.as_u16(), error.message.into_owned()),
            None => (0, String::new()),
        }
    }

    #[test]
    fn ready_is_200_unless_the_process_stops() {
        let degraded = Readiness {
            is_degraded: true,
            is_file_valid: false,
            ..WELL
        };
        let stopping = Readiness {
            is_stopping: true,
            ..degraded
        };
        for (readiness, status, word, valid) in [
            (WELL, 200, "ready", true),
            (degraded, 200, "degraded", false),
            (stopping, 503, "stopping", false),
        ] {
            let expected = format!(
                r#"{{"status":"{word}","configurations":{{"available":1,"total":2}},"secrets_file_valid":{valid}}}"#
            );
            assert_eq!(ask(&Method::GET, "/-/ready", readiness), (status, expected));
            assert_eq!(ask(&Method::HEAD, "/-/health", readiness).0, 200);
        }
    }

    #[test]
    fn only_what_is_below_the_prefix_is_a_page() {
        for (path, status) in [
            ("/-/nothing", 404),
            ("/-/", 404),
            ("/-", 404),
            ("/-x", 0),
            ("/v1", 0),
        ] {
            assert_eq!(ask(&Method::GET, path, WELL).0, status, "{path}");
        }
        assert_eq!(ask(&Method::POST, "/-/health", WELL).0, 405);
        let (_, message) = ask(&Method::GET, "/-/nothing", WELL);
        assert!(message.contains("/-/health and /-/ready"), "{message}");
    }
}
