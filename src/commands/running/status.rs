//! The command `status`: shows what the running proxy is doing.

use std::io;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use std::io::IsTerminal;

use super::ask::{Answer, ask};
use super::snapshot::Snapshot;
use super::view;
use crate::commands::report::{Failure, print, print_problem, write_out};
use crate::commands::text;
use crate::config::options::Options;
use crate::logging::{local_time, may_colour};

/// The most bytes of a page of status: an own one with all its names has some 100 KB.
const MAX_BODY: u64 = 8 << 20;
/// How often the page is asked for anew.
const INTERVAL: Duration = Duration::from_secs(2);
/// Clears the terminal and puts the cursor to its beginning (ECMA-48 ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows the page once, or anew every 2 s until a signal ends the program.
pub fn run(options: &Options, is_json: bool, is_watching: bool) -> Result<(), Failure> {
    let show = |page: &Page| if is_json { page.json() } else { page.text() };
    let mut page = fetch(options).map_err(Failure::Running)?;
    if !is_watching {
        return print(&show(&page));
    }
    let clear = match io::stdout().is_terminal() && !is_json {
        true => CLEAR,
        false => "",
    };
    let mut text = show(&page);
    loop {
        match write_out(&format!("{clear}{text}")) {
            Ok(()) => thread::sleep(INTERVAL),
            // There is no reader left.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                let problem = format!("cannot write to standard output: {error}");
                return Err(Failure::Running(problem));
            }
        }
        text = match fetch(options) {
            Ok(new) => {
                page = new;
                show(&page)
            }
            Err(problem) if is_json => {
                print_problem(&problem);
                String::new()
            }
            Err(problem) => {
                let (seen, problem) = (local_time(page.seen), text::cut(&problem, text::COLUMNS));
                format!("{problem}\nLast seen at {seen}. Asking again every 2 s.\n")
            }
        };
    }
}

/// A page of the running proxy's.
struct Page {
    url: String,
    body: String,
    snapshot: Snapshot,
    /// When it came, in seconds since the epoch.
    seen: i64,
}

impl Page {
    fn json(&self) -> String {
        text::json(self.body.trim_end()) + "\n"
    }

    fn text(&self) -> String {
        let is_coloured = may_colour(&io::stdout());
        view::text(&self.snapshot, &self.url, self.seen, is_coloured)
    }
}

fn fetch(options: &Options) -> Result<Page, String> {
    let Answer { url, status, body } = ask(options, "/-/status", MAX_BODY)?;
    let why = match status {
        200 => None,
        403 => Some(
            "it is shown to loopback addresses and to those of --admin-from only: start the proxy \
             with --admin-from and the address of this machine",
        ),
        404 => Some("flow-proxy before 0.2.0 has no such page; does an old one run there?"),
        _ => Some("not 200; is it flow-proxy that runs there?"),
    };
    if let Some(why) = why {
        return Err(format!("{url} answered {status}: {why}"));
    }
    let body = String::from_utf8(body).ok();
    let snapshot = body.as_ref().map(|body| Snapshot::parse(body.as_bytes()));
    let (Some(body), Some(Some(snapshot))) = (body, snapshot) else {
        return Err(format!(
            "{url} answered 200, but not as flow-proxy does: another program listens there"
        ));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seen = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    Ok(Page {
        url,
        body,
        snapshot,
        seen,
    })
}
