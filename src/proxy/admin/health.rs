//! What health checks ask: whether the process serves, and whether it is ready.

use std::time::Instant;

use http::StatusCode;

use super::look::{AdminResponse, Look};

/// 200 while the process serves.
pub fn health(look: &Look<'_>) -> AdminResponse {
    let version = env!("CARGO_PKG_VERSION");
    let configurations = configurations(look, look.now);
    AdminResponse::json(
        StatusCode::OK,
        format!(r#"{{"status":"ok","version":"{version}","configurations":{configurations}}}"#),
    )
}

/// 200 unless the process stops. An instance that is taken out of service because its credentials are
/// rejected would get no request that could show that they work again.
pub fn ready(look: &Look<'_>) -> AdminResponse {
    let (status, word) = match (look.is_stopping, look.balancer.is_degraded()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, true) => (StatusCode::OK, "degraded"),
        (false, false) => (StatusCode::OK, "ready"),
    };
    let configurations = configurations(look, look.now);
    let is_file_valid = look.is_file_valid;
    AdminResponse::json(
        status,
        format!(
            r#"{{"status":"{word}","configurations":{configurations},"secrets_file_valid":{is_file_valid}}}"#
        ),
    )
}

fn configurations(look: &Look<'_>, now: Instant) -> String {
    let (available, total) = look.balancer.available(now);
    format!(r#"{{"available":{available},"total":{total}}}"#)
}
