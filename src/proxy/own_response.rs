//! Sends what the proxy answers itself: its pages and its errors.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::access_log::{AccessLog, ExchangeEnd};
use super::headers;
use crate::http1::encode::ResponseLength;
use crate::proxy::admin::AdminResponse;
use crate::server::{ClientError, Exchange, field_lines};

/// Sends one of the proxy's pages.
pub(super) fn show(exchange: &mut Exchange<'_>, access_log: &mut AccessLog, page: &AdminResponse) {
    let fields = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_LENGTH, HeaderValue::from(page.body.len())),
    ];
    access_log.status = page.status.as_u16();
    reply(
        exchange,
        access_log,
        page.status.as_u16(),
        &fields,
        page.body.as_bytes(),
    );
}

/// Sends an answer of our own.
pub(super) fn reply(
    exchange: &mut Exchange<'_>,
    access_log: &mut AccessLog,
    status: u16,
    fields: &[(HeaderName, HeaderValue)],
    body: &[u8],
) {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = field_lines(fields).chain(headers::own_id(access_log.id.as_bytes()));
    access_log.time_to_first_byte = Some(access_log.started.elapsed());
    if exchange.head.method == Method::HEAD {
        exchange.start(status, fields, ResponseLength::None);
    } else {
        exchange.start(status, fields, ResponseLength::Length(body.len() as u64));
        exchange.write(body);
    }
    match exchange.finish() {
        Err(ClientError::TimedOut) if access_log.end == ExchangeEnd::Ok => {
            access_log.end = ExchangeEnd::ClientTimeout
        }
        Err(_) if access_log.end == ExchangeEnd::Ok => access_log.end = ExchangeEnd::ClientGone,
        _ => {}
    }
}
