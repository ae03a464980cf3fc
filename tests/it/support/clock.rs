//! HTTP dates, computed without a library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the IMF-fixdate (RFC 9110 section 5.6.7) of the moment `ahead` from now.
pub fn http_date(ahead: Duration) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        + ahead;
    let seconds = since_epoch.as_secs();
    let (mut day, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let weekday = DAYS[(day % 7) as usize]; // 1 January 1970 was a Thursday
    let mut year = 1970;
    while day >= days_in_year(year) {
        day -= days_in_year(year);
        year += 1;
    }
    let mut month = 0;
    while day >= days_in_month(year, month) {
        day -= days_in_month(year, month);
        month += 1;
    }
    format!(
        "{weekday}, {:02} {} {year} {:02}:{:02}:{:02} GMT",
        day + 1,
        MONTHS[month],
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    )
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u64, month_from_0: usize) -> u64 {
    const DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    DAYS[month_from_0] + u64::from(month_from_0 == 1 && is_leap(year))
}
