//! Stores the TLS sessions that new connections resume.
//!
//! A TLS 1.3 ticket serves one connection (RFC 8446 appendix C.4), and rustls's own store keeps eight
//! per server: of more connections made at once, most need a full handshake. This store keeps more
//! tickets and leaves everything else to rustls's store. Any thread may call it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

/// The most tickets: enough for the default of `--workers`. Each takes a few KiB, because it contains a
/// copy of the server's certificates.
const MAX_TICKETS: usize = 256;
/// The most servers whose TLS 1.2 session and key exchange group are kept: the target and a proxy.
const MAX_SERVERS: usize = 2;

/// A session store with many TLS 1.3 tickets.
pub(super) struct TicketStore {
    /// Oldest first. Nearly all are of one server. The lock is not held during I/O.
    tickets: Mutex<VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>>,
    /// Everything but the tickets.
    rest: ClientSessionMemoryCache,
}

impl TicketStore {
    pub(super) fn new() -> TicketStore {
        TicketStore {
            tickets: Mutex::default(),
            // rustls divides this size by the eight tickets per server.
            rest: ClientSessionMemoryCache::new(8 * MAX_SERVERS),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>> {
        // Nothing that can panic runs under this lock, so the tickets are consistent.
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for TicketStore {
    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.lock();
        if tickets.len() >= MAX_TICKETS {
            tickets.pop_front();
        }
        tickets.push_back((server, ticket));
    }

    /// Takes the newest ticket, which stays valid for longest.
    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut tickets = self.lock();
        let newest = tickets.iter().rposition(|(owner, _)| owner == server)?;
        tickets.remove(newest).map(|(_, ticket)| ticket)
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.rest.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.rest.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.rest.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.rest.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.rest.remove_tls12_session(server);
    }
}

/// Shows the name only, because tickets are secret.
impl fmt::Debug for TicketStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TicketStore")
    }
}
