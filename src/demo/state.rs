//! What the simulated Flow remembers: what its accounts have spent and asked, and how the prompts began
//! that it has seen. All its rejections follow from counts, so that the same requests get the same responses.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::accounts::{Account, Standing};
use super::error::ApiError;
use super::usage::{self, Prefix, Usage};

/// The budget of a [`Standing::Basic`] account, in nano-USD: about ten short replies.
const BUDGET: u64 = 3_000_000;
/// Of so many calls of a [`Standing::Basic`] account, all but the last are let in.
const CALLS_TO_LIMIT: u64 = 4;
/// The beginnings of prompts that are remembered.
const MAX_PREFIXES: usize = 4096;

/// Shared by the requests.
#[derive(Default)]
pub(super) struct State {
    /// Guards all that is remembered. No I/O under it.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// By the account's name.
    ledgers: HashMap<&'static str, Ledger>,
    /// The hashes of the beginnings of prompts, the oldest first.
    prefixes: VecDeque<u64>,
}

#[derive(Default, Clone, Copy)]
struct Ledger {
    calls: u64,
    /// In nano-USD, since the budget's period began.
    spent: u64,
}

impl State {
    /// Checks that the account can pay. The rejection begins a new period of its budget, so that it can
    /// pay again once its rest has ended.
    pub(super) fn check_budget(&self, account: &Account) -> Result<(), ApiError> {
        let Some(budget) = budget(account) else {
            return Ok(());
        };
        let mut memory = self.memory();
        let ledger = memory.ledgers.entry(account.name).or_default();
        if ledger.spent < budget {
            return Ok(());
        }
        let spent = std::mem::take(&mut ledger.spent);
        Err(ApiError::budget_exceeded(
            usage::usd(spent),
            usage::usd(budget),
        ))
    }

    /// Counts a call; now and then it is one too many.
    pub(super) fn count_call(&self, account: &Account) -> Result<(), ApiError> {
        let mut memory = self.memory();
        let ledger = memory.ledgers.entry(account.name).or_default();
        ledger.calls += 1;
        let is_limited = account.standing == Standing::Basic;
        match is_limited && ledger.calls.is_multiple_of(CALLS_TO_LIMIT) {
            true => Err(ApiError::rate_limited(account.name, CALLS_TO_LIMIT - 1)),
            false => Ok(()),
        }
    }

    /// Returns how many tokens of a prompt are in the cache: those of its longest beginning that another
    /// prompt had before. Then remembers the others.
    pub(super) fn cached_tokens(&self, prefixes: &[Prefix]) -> u64 {
        let seen = &mut self.memory().prefixes;
        let found = prefixes
            .iter()
            .rposition(|prefix| seen.contains(&prefix.hash));
        let new = &prefixes[found.map_or(0, |index| index + 1)..];
        seen.extend(new.iter().map(|prefix| prefix.hash));
        let surplus = seen.len().saturating_sub(MAX_PREFIXES);
        seen.drain(..surplus);
        found.map_or(0, |index| usage::cacheable(prefixes[index].tokens))
    }

    /// Adds a call's cost to what the account has spent. Returns the sum and the budget, in USD.
    pub(super) fn spend(&self, account: &Account, usage: Option<Usage>) -> (f64, Option<f64>) {
        let mut memory = self.memory();
        let ledger = memory.ledgers.entry(account.name).or_default();
        let cost = usage.map_or(0, |usage| usage.cost);
        ledger.spent = ledger.spent.saturating_add(cost);
        (usage::usd(ledger.spent), budget(account).map(usage::usd))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is complete by itself.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn budget(account: &Account) -> Option<u64> {
    (account.standing == Standing::Basic).then_some(BUDGET)
}
