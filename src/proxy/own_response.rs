//! Sends what the proxy responds itself: its pages and its errors.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::access_log::{AccessLog, ExchangeEnd};
use super::admin::look::AdminResponse;
use super::headers;
use crate::http1::body::BodyLength;
use crate::http1::encode::field_lines;
use crate::server::{ClientError, Exchange};

/// Sends an admin page.
pub fn send_page(exchange: &mut Exchange<'_>, log: &mut AccessLog, page: &AdminResponse) {
    let kind = HeaderValue::from_static(page.content_type);
    let mut fields = vec![
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_LENGTH, HeaderValue::from(page.body.len())),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    let policy = page.policy.clone();
    fields.extend(policy.map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
    send(exchange, log, page.status, &fields, page.body.as_bytes());
}

/// Sends a response of our own, and notes its status and if the client does not take it.
pub fn send(
    exchange: &mut Exchange<'_>,
    log: &mut AccessLog,
    status: StatusCode,
    fields: &[(HeaderName, HeaderValue)],
    body: &[u8],
) {
    let fields = field_lines(fields).chain(headers::own_id(log.id.as_bytes()));
    log.status = status.as_u16();
    log.time_to_first_byte = Some(log.started.elapsed());
    if exchange.head.method == Method::HEAD {
        exchange.start(status, fields, BodyLength::None);
    } else {
        exchange.start(status, fields, BodyLength::Known(body.len() as u64));
        exchange.write(body);
    }
    match exchange.finish() {
        Err(ClientError::TimedOut) if log.end == ExchangeEnd::Ok => {
            log.end = ExchangeEnd::ClientTimeout;
        }
        Err(_) if log.end == ExchangeEnd::Ok => log.end = ExchangeEnd::ClientGone,
        _ => {}
    }
}
