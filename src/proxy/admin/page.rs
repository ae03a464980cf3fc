//! The page for people: one HTML document, which asks for the status by itself.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::look::AdminResponse;

const PAGE: &str = include_str!("page.html");

/// The page, with a policy that lets its own script and style act and nothing else.
pub fn page() -> AdminResponse {
    static POLICY: OnceLock<Option<HeaderValue>> = OnceLock::new();
    AdminResponse {
        status: StatusCode::OK,
        content_type: "text/html; charset=utf-8",
        policy: POLICY.get_or_init(|| policy(PAGE)).clone(),
        body: PAGE.into(),
    }
}

/// W3C, Content Security Policy Level 3.
fn policy(page: &str) -> Option<HeaderValue> {
    let script = hash_of(page, "script")?;
    let style = hash_of(page, "style")?;
    let policy = format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).ok()
}

/// The hash of what stands in the one element of this name.
fn hash_of(page: &str, name: &str) -> Option<String> {
    let (_, from) = page.split_once(&format!("<{name}>"))?;
    let (text, _) = from.split_once(&format!("</{name}>"))?;
    Some(format!("sha256-{}", STANDARD.encode(Sha256::digest(text))))
}
