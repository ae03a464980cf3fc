//! The accounts of the simulated Flow. Nothing here is secret: every copy of this program has them.

/// A client of the simulated Flow.
pub(super) struct Account {
    /// The name of its configuration in the proxy.
    pub(super) name: &'static str,
    pub(super) client_id: &'static str,
    pub(super) client_secret: &'static str,
    pub(super) tenant: &'static str,
    pub(super) standing: Standing,
}

/// Whether the tokens of an account are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    Revoked,
}

/// All accounts. The second one is rejected, so that a failover can be seen.
pub(super) const ACCOUNTS: [Account; 3] = [
    Account {
        name: "demo-1",
        client_id: "demo-client-1",
        client_secret: "demo-secret-1-not-real",
        tenant: "demo-tenant",
        standing: Standing::Good,
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
        standing: Standing::Good,
    },
];
