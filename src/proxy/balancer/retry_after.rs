//! How long an upstream asks for a rest, in the forms that LiteLLM and its providers use. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tz::UtcDateTime;

use crate::http1::headers::{HeaderBlock, KnownHeader};

/// The rest where the upstream tells none.
const DEFAULT: Duration = Duration::from_secs(5);
/// The shortest rest: with less a limited credential would be asked over and over.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest rest that an upstream can ask for.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Returns the time told by a limit's header fields, else by its error message.
///
/// Dates are read against the response's own `Date`, so that a clock that is wrong on either side does
/// not matter; `now` is ours, for a response without one.
pub fn time_told(fields: &HeaderBlock, message: &str, now: SystemTime) -> Duration {
    let date = fields.find(b"date").and_then(text);
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.unwrap_or(now);
    let retry_after = || seconds_or_date(text(fields.value(KnownHeader::RetryAfter)?)?, now);
    let milliseconds = || {
        let number: f64 = text(fields.find(b"retry-after-ms")?)?.parse().ok()?;
        seconds(number / 1000.0)
    };
    let reset_at = || {
        let field = fields.find(b"reset_at").and_then(text);
        let in_message = || Some(message.split_once("Limit resets at:")?.1.trim_start());
        utc(field.or_else(in_message)?, now)
    };
    retry_after()
        .or_else(milliseconds)
        .or_else(reset_at)
        .or_else(|| reset_headers(fields, now))
        .unwrap_or(DEFAULT)
        .clamp(SHORTEST, LONGEST)
}

/// RFC 9110 section 10.2.3, and fractions of a second, which some providers send.
fn seconds_or_date(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(number) = value.parse() {
        return seconds(number);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date that has passed asks for no rest.
    Some(date.duration_since(now).unwrap_or_default())
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(str::trim)
}

fn seconds(number: f64) -> Option<Duration> {
    (number >= 0.0).then(|| Duration::try_from_secs_f64(number).unwrap_or(LONGEST))
}

/// `2026-01-15 10:30:00 UTC`, as Python prints it; a fraction of the second is passed over.
fn utc(value: &str, now: SystemTime) -> Option<Duration> {
    let number = |range: std::ops::Range<usize>| value.get(range)?.parse::<u16>().ok();
    let byte = |start| number(start..start + 2).and_then(|number| u8::try_from(number).ok());
    let year = i32::from(number(0..4)?);
    let reset = UtcDateTime::new(year, byte(5)?, byte(8)?, byte(11)?, byte(14)?, byte(17)?, 0);
    let seconds = u64::try_from(reset.ok()?.unix_time()).ok()?;
    let reset = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(reset.duration_since(now).unwrap_or_default())
}

/// `x-ratelimit-reset-requests` and `-tokens`: the later of those whose `-remaining-` is 0.
fn reset_headers(fields: &HeaderBlock, now: SystemTime) -> Option<Duration> {
    let reset = |kind: &str| {
        let field = |what: &str| {
            let value = fields.find(format!("x-ratelimit-{what}-{kind}").as_bytes())?;
            std::str::from_utf8(value).ok().map(str::trim)
        };
        let is_used_up = field("remaining")?.parse() == Ok(0.0);
        is_used_up
            .then(|| duration_or_epoch(field("reset")?, now))
            .flatten()
    };
    reset("requests").max(reset("tokens"))
}

/// `6m0s`, `20ms`, seconds, or seconds since 1970.
fn duration_or_epoch(value: &str, now: SystemTime) -> Option<Duration> {
    /// No rest is so long: it is a point in time.
    const EPOCH: f64 = 1e9;
    if let Ok(number) = value.parse::<f64>() {
        let since_epoch = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        return seconds(if number < EPOCH {
            number
        } else {
            (number - since_epoch).max(0.0)
        });
    }
    let (mut total, mut rest) = (0.0, value);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    seconds(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: (&str, &str) = ("Date", "Thu, 15 Jan 2026 10:29:30 GMT");

    fn told(fields: &[(&str, &str)], message: &str) -> f64 {
        // Our own clock is days off.
        let now = httpdate::parse_http_date("Sun, 18 Jan 2026 10:29:30 GMT").unwrap();
        time_told(&HeaderBlock::of(fields), message, now).as_secs_f64()
    }

    #[test]
    fn the_first_form_that_is_there_counts() {
        let message = "Limit resets at: 2026-01-15 10:30:00 UTC";
        let all = [
            DATE,
            ("Retry-After", "7"),
            ("Retry-After-Ms", "9000"),
            ("reset_at", "2026-01-15 10:29:41 UTC"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "13s"),
        ];
        for (from, expected) in [(1, 7.0), (2, 9.0), (3, 11.0), (4, 30.0)] {
            let fields = [&all[..1], &all[from..]].concat();
            assert_eq!(told(&fields, message), expected, "from {from}");
        }
        assert_eq!(told(&all[4..], ""), 13.0);
        assert_eq!(told(&[], ""), 5.0);
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_of_the_upstreams_clock() {
        for (value, expected) in [
            ("7", 7.0),
            ("1.5", 1.5),
            ("0", 1.0),
            ("86400", 300.0),
            ("99999999999999999999999", 300.0),
            ("Thu, 15 Jan 2026 10:29:50 GMT", 20.0),
            ("Thu, 15 Jan 2026 10:20:00 GMT", 1.0),
            ("soon", 5.0),
            ("-1", 5.0),
            ("NaN", 5.0),
            ("inf", 300.0),
        ] {
            assert_eq!(
                told(&[DATE, ("Retry-After", value)], ""),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn reset_headers_count_where_nothing_remains() {
        let reset = |requests, requests_reset, tokens, tokens_reset| {
            told(
                &[
                    DATE,
                    ("x-ratelimit-remaining-requests", requests),
                    ("x-ratelimit-reset-requests", requests_reset),
                    ("x-ratelimit-remaining-tokens", tokens),
                    ("x-ratelimit-reset-tokens", tokens_reset),
                ],
                "",
            )
        };
        assert_eq!(reset("0", "1m3.5s", "5", "200"), 63.5);
        assert_eq!(reset("0", "2s", "0", "6m0s"), 300.0);
        assert_eq!(reset("0", "20ms", "1", "1h"), 1.0);
        assert_eq!(reset("3", "20s", "0", "30"), 30.0);
        // 2026-01-15 10:30:00 UTC
        assert_eq!(reset("0", "1768473000", "1", "1"), 30.0);
        assert_eq!(reset("0", "in a while", "1", "1"), 5.0);
        assert_eq!(reset("0", "1d", "", ""), 5.0);
    }

    #[test]
    fn a_reset_that_is_malformed_or_over_asks_for_the_shortest_or_the_default() {
        for (value, expected) in [
            ("2026-01-15 10:29:00 UTC", 1.0),
            ("2026-01-15T10:30:10.123456Z", 40.0),
            ("2026-13-15 10:30:00 UTC", 5.0),
            ("soon", 5.0),
            ("", 5.0),
            ("0000-00-00 00:00:00", 5.0),
            ("ééééééééééé", 5.0),
        ] {
            assert_eq!(told(&[DATE, ("reset_at", value)], ""), expected, "{value}");
        }
    }
}
