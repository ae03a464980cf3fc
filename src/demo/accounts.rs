//! The accounts of the simulated Flow. Nothing here is secret: every copy of this program has them.

use super::error::ApiError;

/// The model that a [`Standing::Basic`] account may not use.
pub(super) const VIP_MODEL: &str = "demo-vip";
/// The model that the budget of a [`Standing::Basic`] account does not cover.
pub(super) const COSTLY_MODEL: &str = "demo-costly";

/// A client of the simulated Flow.
pub(super) struct Account {
    /// The name of its configuration in the proxy.
    pub(super) name: &'static str,
    pub(super) client_id: &'static str,
    pub(super) client_secret: &'static str,
    pub(super) tenant: &'static str,
    pub(super) standing: Standing,
}

/// What the tokens of an account are good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// All models.
    Full,
    /// All models but [`VIP_MODEL`], on a small budget.
    Basic,
    Revoked,
}

/// All accounts. Each rejection has an account that does not share it, so that a failover succeeds.
pub(super) const ACCOUNTS: [Account; 3] = [
    Account {
        name: "demo-1",
        client_id: "demo-client-1",
        client_secret: "demo-secret-1-not-real",
        tenant: "demo-tenant",
        standing: Standing::Basic,
    },
    Account {
        name: "demo-revoked",
        client_id: "demo-client-2",
        client_secret: "demo-secret-2-not-real",
        tenant: "demo-tenant",
        standing: Standing::Revoked,
    },
    Account {
        name: "demo-3",
        client_id: "demo-client-3",
        client_secret: "demo-secret-3-not-real",
        tenant: "demo-tenant",
        standing: Standing::Full,
    },
];

impl Account {
    /// Whether the account's list of models has `model`.
    pub(super) fn lists(&self, model: &str) -> bool {
        self.standing == Standing::Full || model != VIP_MODEL
    }

    /// Checks that the account may use `model` and can pay for it.
    ///
    /// # Errors
    /// LiteLLM's error for a denied model or for a spent budget.
    pub(super) fn authorize(&self, model: &str) -> Result<(), ApiError> {
        if !self.lists(model) {
            return Err(ApiError::model_denied(model));
        }
        if self.standing == Standing::Basic && model == COSTLY_MODEL {
            return Err(ApiError::budget_exceeded());
        }
        Ok(())
    }
}
