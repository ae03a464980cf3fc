//! The accounts of the simulated Flow. Nothing here is secret: every copy of this program has them.

use super::error::ApiError;

/// The model that a [`Standing::Basic`] account may not use.
pub(super) const VIP_MODEL: &str = "demo-vip";

/// A model, and what a token of it costs, in nano-USD (USD for a million tokens, times 1000).
pub(super) struct Model {
    pub(super) id: &'static str,
    pub(super) input_price: u64,
    pub(super) output_price: u64,
}

/// The models that are listed. Requests may name any model.
pub(super) static MODELS: [Model; 3] = [
    Model {
        id: "demo-gpt",
        input_price: 2500,
        output_price: 10_000,
    },
    Model {
        id: "demo-claude",
        input_price: 3000,
        output_price: 15_000,
    },
    Model {
        id: VIP_MODEL,
        input_price: 15_000,
        output_price: 75_000,
    },
];

impl Model {
    /// Returns the model with this name; any other one costs what the first one does.
    pub(super) fn named(id: &str) -> &'static Model {
        let mut models = MODELS.iter();
        models.find(|model| model.id == id).unwrap_or(&MODELS[0])
    }
}

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
    /// All models but [`VIP_MODEL`], with a limit and on a small budget.
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

    /// Checks that the account may use `model`.
    ///
    /// # Errors
    /// LiteLLM's error for a denied model.
    pub(super) fn authorize(&self, model: &str) -> Result<(), ApiError> {
        match self.lists(model) {
            true => Ok(()),
            false => Err(ApiError::model_denied(model)),
        }
    }
}
