//! A worker thread: its main loop, and what it does with a connection that it has served.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::leader::Leader;
use super::pool::{Task, Workers};
use crate::net::wait::Leadership;
use crate::server::connection::client::ReadOutcome;
use crate::server::connection::{CloseReason, Connection, ConnectionFate};
use crate::server::event_loops::slots::Work;
use crate::server::exchange::WritePolicy;
use crate::server::handler::Handler;
use crate::server::serve::{Buffers, Served, Serving, needs_permit, serve};

/// The stack of a worker thread, in bytes. Its deepest work is a TLS handshake, for which debug builds
/// need more.
const STACK_SIZE: usize = if cfg!(debug_assertions) {
    1 << 20
} else {
    256 << 10
};

/// Starts the worker threads.
///
/// # Errors
/// The system allows no further thread. Those that were started stay, so the process should end.
pub(crate) fn start_all<H: Handler>(workers: &Arc<Workers<H>>) -> io::Result<()> {
    let threads = workers.thread_count();
    for index in 0..threads {
        let workers = Arc::clone(workers);
        let started = thread::Builder::new()
            .name(format!("worker-{}", index + 1))
            .stack_size(STACK_SIZE)
            .spawn(move || run(&workers, index));
        if let Err(error) = started {
            return Err(io::Error::new(
                error.kind(),
                format!(
                    "only {index} of {threads} worker threads could be started ({error}): \
                     lower --workers or raise the limit on threads (ulimit -u, cgroup pids.max)"
                ),
            ));
        }
    }
    Ok(())
}

/// The main loop of a worker thread. Ends with the process.
fn run<H: Handler>(workers: &Arc<Workers<H>>, thread: usize) {
    let leader = Leader::new(Arc::clone(workers), thread);
    loop {
        let task = workers.next_task(thread);
        // A worker for each task, so that idle threads hold no buffers.
        let mut worker = Worker::new(workers, &leader, thread);
        let work = AssertUnwindSafe(|| match task {
            Task::Lead(event_loop) => worker.lead(event_loop),
            Task::Serve(connection) => worker.serve_admitted(connection),
        });
        // Panics of a handler are caught in `Worker::serve`. One of our own, which the panic hook has
        // logged, costs its request; the thread and its event loop go on.
        if catch_unwind(work).is_err() {
            leader.hand_over();
            if worker.has_permit
                && let Some(connection) = workers.admission.release()
            {
                workers.schedule(Task::Serve(connection));
            }
        }
    }
}

/// A worker thread with a task.
pub(super) struct Worker<'w, H: Handler> {
    workers: &'w Workers<H>,
    leader: &'w Leader<H>,
    thread: usize,
    buffers: Buffers,
    /// Whether the connection that it works on has a permit.
    pub(super) has_permit: bool,
}

impl<'w, H: Handler> Worker<'w, H> {
    pub(super) fn new(workers: &'w Workers<H>, leader: &'w Leader<H>, thread: usize) -> Self {
        Worker {
            workers,
            leader,
            thread,
            buffers: Buffers::default(),
            has_permit: false,
        }
    }

    /// Leads an event loop until it is handed over. This is the main loop of a busy proxy.
    fn lead(&mut self, index: usize) {
        let event_loop = &self.workers.event_loops[index];
        let admission = &self.workers.admission;
        self.leader.lead(index);
        let mut reported = Vec::new();
        while self.leader.is_leading() {
            match event_loop.next(&mut reported, || admission.is_stopping()) {
                Work::Serve(slot, connection, context) => {
                    self.leader.set_slot(slot);
                    self.serve_if_admitted(connection, context);
                }
                Work::Resume(slot, connection, context) => {
                    self.leader.set_slot(slot);
                    self.has_permit = true;
                    let served = self.serve(connection, Some(context), WritePolicy::MayWait);
                    self.finish(served);
                }
                Work::Expire(slot, connection, context) => {
                    event_loop.remove(slot);
                    self.put_context(context);
                    admission.return_to_acceptor(ConnectionFate::Idle(connection));
                }
            }
        }
    }

    /// Serves a connection of the event loop on which something has arrived, if there is a permit for it.
    fn serve_if_admitted(
        &mut self,
        mut connection: Box<Connection>,
        context: Option<Box<H::Context>>,
    ) {
        if self.workers.admission.try_admit() {
            self.has_permit = true;
            let served = self.serve(connection, context, WritePolicy::MayWait);
            return self.finish(served);
        }
        let storage = &mut self.buffers.storage;
        match connection.client.read_available(storage) {
            ReadOutcome::Received => self.serve_without_permit(connection, context),
            // What the event reported has been read before.
            ReadOutcome::Nothing => {
                let context = self.context_or(context);
                self.put(ConnectionFate::Idle(connection), context);
            }
            ReadOutcome::End => {
                self.leader.free_slot();
                self.put_context(context);
                connection.log_close(CloseReason::ClientClosed);
            }
        }
    }

    /// Serves a request that needs no permit, or lets it wait for one.
    fn serve_without_permit(
        &mut self,
        mut connection: Box<Connection>,
        context: Option<Box<H::Context>>,
    ) {
        if !needs_permit(&mut connection, &*self.workers.handler) {
            let served = self.serve(connection, context, WritePolicy::NeverWait);
            return self.conclude(served);
        }
        self.leader.free_slot();
        self.put_context(context);
        self.workers.enqueue(connection);
    }

    /// Serves a connection that has been admitted and is in no event loop.
    fn serve_admitted(&mut self, connection: Box<Connection>) {
        self.has_permit = true;
        self.set_serving(&connection);
        let served = self.serve(connection, None, WritePolicy::MayWait);
        self.finish(served);
    }

    /// Concludes a request that had a permit, then serves the connections that have waited for it.
    fn finish(&mut self, mut served: Served<H>) {
        // A request that waits keeps its permit.
        while !matches!(served, Served::AwaitingUpstream(..)) {
            self.conclude(served);
            self.has_permit = false;
            let Some(connection) = self.workers.admission.release() else {
                return;
            };
            self.has_permit = true;
            self.leader.take_slot(&connection.client.socket);
            if !self.leader.is_leading() {
                self.set_serving(&connection);
            }
            served = self.serve(connection, None, WritePolicy::MayWait);
        }
        self.conclude(served);
    }

    /// Serves `connection` with `context` or a spare one. A panic ends one request, not the thread.
    fn serve(
        &mut self,
        connection: Box<Connection>,
        context: Option<Box<H::Context>>,
        write_policy: WritePolicy,
    ) -> Served<H> {
        let (workers, context) = (self.workers, self.context_or(context));
        let serving = Serving {
            handler: &*workers.handler,
            admission: &workers.admission,
            leadership: self.leader,
            write_policy,
        };
        let buffers = &mut self.buffers;
        let work = || serve(connection, context, buffers, &serving);
        catch_unwind(AssertUnwindSafe(work)).unwrap_or(Served::Panicked)
    }

    /// Puts a connection that has been served, and its context, where they belong next.
    fn conclude(&mut self, served: Served<H>) {
        match served {
            Served::Done(fate, context) => self.put(fate, context),
            Served::AwaitingUpstream(connection, context) => {
                self.put_awaiting_upstream(connection, context);
            }
            // The panic hook has logged it. The client sees a closed connection, and nothing is used
            // again that the panic could have left in an inconsistent state.
            Served::Panicked => self.leader.free_slot(),
        }
    }

    fn put(&self, fate: ConnectionFate, context: Box<H::Context>) {
        if let ConnectionFate::Idle(connection) = fate {
            return self.put_idle(connection, context);
        }
        self.leader.free_slot();
        self.put_context(Some(context));
        match fate {
            ConnectionFate::Close(connection, reason) => connection.log_close(reason),
            ConnectionFate::Requeue(connection) => self.workers.enqueue(connection),
            fate => self.workers.admission.return_to_acceptor(fate),
        }
    }

    /// Lets an idle connection stay in its event loop, join one, or wait in the accept thread.
    fn put_idle(&self, connection: Box<Connection>, context: Box<H::Context>) {
        match self.leader.put_idle(connection, context) {
            Ok(spare) => self.put_context(spare),
            Err((connection, context)) => {
                self.put_context(Some(context));
                if let Err(connection) = self.workers.add_to_event_loop(connection) {
                    let fate = ConnectionFate::Idle(connection);
                    self.workers.admission.return_to_acceptor(fate);
                }
            }
        }
    }

    /// Lets a request wait for the upstream in the event loop. If that is impossible, this thread goes on
    /// with it at once and waits itself.
    pub(super) fn put_awaiting_upstream(
        &mut self,
        connection: Box<Connection>,
        context: Box<H::Context>,
    ) {
        let handler = &*self.workers.handler;
        let put = self
            .leader
            .put_awaiting_upstream(connection, context, handler);
        let Err((connection, context)) = put else {
            // The permit stays with the request.
            self.has_permit = false;
            return;
        };
        self.leader.hand_over();
        let served = self.serve(connection, Some(context), WritePolicy::MayWait);
        self.finish(served);
    }

    fn set_serving(&self, connection: &Connection) {
        let client = Arc::clone(&connection.client.socket);
        self.workers.set_serving(self.thread, Some(client));
    }

    /// Returns `context`, else a spare one, else a new one.
    pub(super) fn context_or(&self, context: Option<Box<H::Context>>) -> Box<H::Context> {
        let workers = self.workers;
        context
            .or_else(|| workers.contexts.take())
            .unwrap_or_else(|| Box::new(workers.handler.new_context()))
    }

    pub(super) fn put_context(&self, context: Option<Box<H::Context>>) {
        if let Some(context) = context {
            self.workers.contexts.put(context);
        }
    }
}
