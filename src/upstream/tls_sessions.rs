//! TLS sessions that new connections resume.
//!
//! A ticket of TLS 1.3 is good for one connection (RFC 8446, appendix C.4), and rustls's own store
//! keeps eight of them for a server: when more connections than that are made at once most of them
//! need a full handshake. This store keeps more of them, and leaves all else to rustls's.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

/// As many as `--workers` connections at once need, by default. Each holds a copy of the server's
/// certificates, so a few KiB.
const MAX_TICKETS: usize = 256;
/// The target, and a proxy before it: for the session of TLS 1.2 and the key exchange of each.
const MAX_SERVERS: usize = 2;

/// See the module's documentation.
pub(super) struct TicketStore {
    /// Oldest first. Nearly always of one server.
    tickets: Mutex<VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>>,
    /// Of all servers, but for their tickets.
    others: ClientSessionMemoryCache,
}

impl TicketStore {
    pub(super) fn new() -> TicketStore {
        TicketStore {
            tickets: Mutex::default(),
            // It counts in eighths of servers.
            others: ClientSessionMemoryCache::new(8 * MAX_SERVERS),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
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

    /// The newest: it is valid for longest.
    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut tickets = self.lock();
        let newest = tickets.iter().rposition(|(of, _)| of == server)?;
        tickets.remove(newest).map(|(_, ticket)| ticket)
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.others.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.others.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.others.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.others.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.others.remove_tls12_session(server);
    }
}

/// Tickets are secret.
impl fmt::Debug for TicketStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sessions")
    }
}
