//! Sends what the proxy answers itself: its pages and its errors.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::access_log::{End, Record};
use super::headers;
use crate::http1::encode::AnswerFraming;
use crate::proxy::admin::Page;
use crate::server::{ClientFault, Exchange, field_lines};

/// Sends one of the proxy's pages.
pub(super) fn show(exchange: &mut Exchange<'_>, record: &mut Record, page: &Page) {
    let fields = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_LENGTH, HeaderValue::from(page.body.len())),
    ];
    record.status = page.status.as_u16();
    reply(
        exchange,
        record,
        page.status.as_u16(),
        &fields,
        page.body.as_bytes(),
    );
}

/// Sends an answer of our own.
pub(super) fn reply(
    exchange: &mut Exchange<'_>,
    record: &mut Record,
    status: u16,
    fields: &[(HeaderName, HeaderValue)],
    body: &[u8],
) {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = field_lines(fields).chain(headers::own_id(record.id.as_bytes()));
    record.time_to_first_byte = Some(record.started.elapsed());
    if exchange.head.method == Method::HEAD {
        exchange.start(status, fields, AnswerFraming::None);
    } else {
        exchange.start(status, fields, AnswerFraming::Length(body.len() as u64));
        exchange.write(body);
    }
    match exchange.finish() {
        Err(ClientFault::TimedOut) if record.end == End::Ok => record.end = End::ClientTimeout,
        Err(_) if record.end == End::Ok => record.end = End::ClientGone,
        _ => {}
    }
}
