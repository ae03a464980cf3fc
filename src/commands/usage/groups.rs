//! Sums of access lines, by group. The number of groups is bounded.

use std::collections::HashMap;

use super::record::Record;
use crate::cli::GroupBy;
use crate::proxy::usage::tokens::Tokens;

/// The most groups. What belongs to none of them is added up as [`OTHER`].
const MAX_GROUPS: usize = 10_000;
/// The most groups that failed requests can make: they may ask for models that do not exist.
const MAX_GROUPS_OF_FAILED: usize = MAX_GROUPS / 2;
/// The longest name of a group, in bytes: the proxy writes 64 at most, but for configurations.
const MAX_NAME: usize = 128;
/// What the sum of all other groups is called.
const OTHER: &[u8] = b"other";
/// Splits the names of a key. No name holds it.
const SEPARATOR: u8 = b'\n';

/// Sums of requests. All saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    pub requests: u64,
    pub errors: u64,
    pub tokens: Tokens,
    /// Requests whose tokens are known.
    pub known: u64,
    /// Successful requests that use tokens and do not tell how many.
    pub unknown: u64,
    /// In US dollars.
    pub cost: f64,
    /// Requests that use tokens and do not tell what they cost.
    pub without_cost: u64,
}

impl Sums {
    fn add(&mut self, record: &Record<'_>) {
        let is_counted = record.is_counted();
        self.requests = self.requests.saturating_add(record.requests);
        if record.is_error() {
            self.errors = self.errors.saturating_add(record.requests);
        }
        match record.tokens {
            Some(tokens) => {
                self.tokens = self.tokens.plus(tokens);
                self.known += 1;
            }
            None => self.unknown += u64::from(is_counted),
        }
        match record.cost {
            Some(cost) => self.cost = (self.cost + cost).min(f64::MAX),
            None => self.without_cost += u64::from(is_counted),
        }
    }
}

/// The sums of each group, and of all.
pub struct Groups {
    by: Vec<GroupBy>,
    pub total: Sums,
    /// By the group's names, in the order of `by`, split by [`SEPARATOR`].
    sums: HashMap<Box<[u8]>, Sums>,
    other: Sums,
    /// The key of the current line. Kept for its memory.
    key: Vec<u8>,
}

/// A group with its names, in the order of [`Groups::by`].
pub type Group<'g> = (Vec<&'g [u8]>, &'g Sums);

impl Groups {
    pub fn new(by: &[GroupBy]) -> Groups {
        Groups {
            by: by.to_vec(),
            total: Sums::default(),
            sums: HashMap::new(),
            other: Sums::default(),
            key: Vec::new(),
        }
    }

    pub fn by(&self) -> &[GroupBy] {
        &self.by
    }

    pub fn add(&mut self, record: &Record<'_>) {
        self.total.add(record);
        if self.by.is_empty() {
            return;
        }
        self.key.clear();
        for by in &self.by {
            push_name(*by, record, &mut self.key);
        }
        if let Some(sums) = self.sums.get_mut(&self.key[..]) {
            return sums.add(record);
        }
        let sums = if self.sums.len() < max_groups(record) {
            self.sums.entry(self.key.as_slice().into()).or_default()
        } else {
            &mut self.other
        };
        sums.add(record);
    }

    /// Returns the groups: by name where the first of their names is a day or a status, else those with
    /// the most requests first.
    pub fn sorted(&self) -> Vec<Group<'_>> {
        let names = |key| <[u8]>::split(key, |byte| *byte == SEPARATOR).take(self.by.len());
        let groups = self.sums.iter();
        let groups = groups.map(|(key, sums)| (names(key).collect::<Vec<_>>(), sums));
        let mut groups: Vec<Group<'_>> = groups.collect();
        groups.sort_by(|(names, _), (others, _)| names.cmp(others));
        if !matches!(self.by.first(), Some(GroupBy::Day | GroupBy::Status)) {
            groups.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.requests));
        }
        if self.other.requests > 0 {
            groups.push((vec![OTHER; self.by.len()], &self.other));
        }
        groups
    }
}

fn max_groups(record: &Record<'_>) -> usize {
    if record.is_success() {
        MAX_GROUPS
    } else {
        MAX_GROUPS_OF_FAILED
    }
}

/// Appends the name that a line has for a kind of group, and the separator.
fn push_name(by: GroupBy, record: &Record<'_>, key: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let name = match by {
        GroupBy::Config => &record.config[..],
        GroupBy::Model => &record.model,
        GroupBy::Client if record.client.is_empty() => &record.agent,
        GroupBy::Client => &record.client,
        GroupBy::Day => &record.time[..10],
        GroupBy::Status if record.status == 0 => b"-",
        GroupBy::Status => digits.format(record.status).as_bytes(),
    };
    let name = if name.is_empty() { b"-" } else { name };
    let name = &name[..name.len().min(MAX_NAME)];
    let without_separator = |byte: &u8| if *byte == SEPARATOR { b' ' } else { *byte };
    key.extend(name.iter().map(without_separator));
    key.push(SEPARATOR);
}
