//! Outlines of plans, made besides the passes.

use rabot_ir::{Graph, budget};
use rabot_kernel::Staged;
use rabot_target::Profile;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Plans for predictions, by number; none where a graph cannot be planned.
pub(super) type Planned = Vec<Option<Staged>>;

/// A thread that outlines the plans of graphs.
#[derive(Default)]
pub(super) struct Outlines<'a> {
    graphs: Option<Sender<Arc<Graph>>>,
    count: usize,
    thread: Option<ScopedJoinHandle<'a, Planned>>,
}

impl<'a> Outlines<'a> {
    /// Starts it.
    pub fn start<'s>(scope: &'s Scope<'s, 'a>, profile: &'a Profile) -> Outlines<'s> {
        let (graphs, given) = channel::<Arc<Graph>>();
        let budget = budget::current();
        let work = move || given.iter().map(|graph| rabot_kernel::outline(&graph, profile).ok()).collect();
        let thread = scope.spawn(move || budget::within(budget, work));
        Outlines { graphs: Some(graphs), count: 0, thread: Some(thread) }
    }

    /// Has a graph outlined; gives its number.
    pub fn of(&mut self, graph: Arc<Graph>) -> usize {
        // If the thread is gone it panicked, and that comes out in the end.
        let _ = self.graphs.as_ref().map(|graphs| graphs.send(graph));
        self.count += 1;
        self.count - 1
    }

    /// All of them.
    pub fn finish(self) -> Planned {
        drop(self.graphs);
        let joined = self.thread.map(ScopedJoinHandle::join);
        joined.map_or_else(Vec::new, |outcome| outcome.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}
