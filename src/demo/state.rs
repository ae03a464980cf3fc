//! What the simulated Flow remembers: what its accounts have spent and asked, and the prompts that it
//! has seen. All its rejections follow from counts, so that the same requests get the same responses.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::accounts::{Account, Standing};
use super::error::ApiError;
use super::usage::{self, Prefix, Usage};

/// The budget of a [`Standing::Basic`] account, in nano-USD: about ten short replies.
const BUDGET: u64 = 3_000_000;
/// Of so many calls of a [`Standing::Basic`] account, all but the last are let in.
const CALLS_TO_LIMIT: u64 = 4;
/// The prompts that are remembered.
const MAX_PROMPTS: usize = 256;

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
    /// The hashes of whole prompts, the oldest first.
    prompts: VecDeque<u64>,
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

    /// Returns how many tokens of a prompt are in the cache: those of the longest beginning that was a
    /// whole prompt before. Then remembers the prompt.
    pub(super) fn cached_tokens(&self, prefixes: &[Prefix]) -> u64 {
        let prompts = &mut self.memory().prompts;
        let found = prefixes
            .iter()
            .rfind(|prefix| prompts.contains(&prefix.hash));
        let cached = found.map_or(0, |prefix| usage::cacheable(prefix.tokens));
        if let Some(whole) = prefixes.last() {
            prompts.retain(|hash| *hash != whole.hash);
            prompts.push_back(whole.hash);
        }
        if prompts.len() > MAX_PROMPTS {
            prompts.pop_front();
        }
        cached
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
