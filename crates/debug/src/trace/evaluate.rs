//! Evaluation of expressions: each once, side by side, and no longer kept than needed.
//!
//! Expressions are evaluated in the order of the first graph, so that the same value of all graphs is there at the same
//! time, is compared, and is dropped. Where an operator has been applied to operands with the same contents already, its
//! results are taken from there: a change that gives the same bits costs no more from there on.

use super::exprs::{Exprs, Hash, Port, Work, hash_of};
use crate::Difference;
use bytes::Bytes;
use rabot_ir::interp::{InterpError, run_node};
use rabot_ir::{Datum, budget};
use rabot_tensor::{DType, Tensor};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// What a value is compared with.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// Another value.
    Port(Port),
    /// The bytes of a buffer.
    Bytes(DType, Bytes),
    /// A tensor.
    Tensor(Tensor),
    /// What is told while the evaluation runs; see [`Late`].
    Later,
    /// Nothing.
    Nothing,
}

/// What comparisons wait for that is made while graphs are evaluated.
pub(crate) trait Late {
    /// Makes it, besides the evaluation.
    fn make(&mut self);

    /// What takes the place of [`Side::Later`], by number of the request; those that are not among them are not compared.
    /// `None` if the evaluation is of no use any more. No operator is begun before it returns.
    fn tell(&mut self) -> Option<HashMap<usize, Side>>;
}

/// A comparison to be made: how far `left` is from `right`.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// What is looked at.
    pub left: Side,
    /// What it is held to.
    pub right: Port,
}

/// What a comparison gave.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// How far they are apart.
    Apart(Difference),
    /// They are of different dtypes or sizes, as the text says.
    Unlike(String),
    /// One of them could not be evaluated, or is no tensor.
    Missing,
}

/// What evaluation found.
#[derive(Debug, Default)]
pub(crate) struct Evaluated {
    /// One for each request.
    pub outcomes: Vec<Outcome>,
    /// The values that were to be kept.
    pub kept: HashMap<Port, Datum>,
    /// Shapes of the tensors.
    pub shapes: HashMap<Port, Vec<usize>>,
    /// Hashes of the values that were to be kept.
    pub hashes: HashMap<Port, Hash>,
    /// Number of operators that were applied.
    pub applied: usize,
}

/// Evaluates what requests and `keep` need, on as many threads; results do not depend on how many. One of them makes
/// what is late before it evaluates.
///
/// **Errors**: a node of a graph of the pipeline fails; with the number of the first graph that has it.
pub(crate) fn evaluate(
    exprs: &Exprs,
    requests: Vec<Request>,
    keep: &[Port],
    threads: usize,
    late: &mut dyn Late,
) -> Result<Evaluated, (usize, InterpError)> {
    let state = State::new(exprs, requests, keep);
    let shared = Shared { exprs, state: Mutex::new(state), changed: Condvar::new() };
    let budget = budget::current();
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(|| budget::within(budget, || shared.work()));
        }
        late.make();
        shared.deliver(late);
        shared.work();
    });
    let mut state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let stage_of = |id: usize| exprs.all().get(id).and_then(|expr| expr.stage);
    let fatal = state.failed.keys().copied().find(|&id| stage_of(id).is_some());
    if let Some(error) = fatal.and_then(|id| Some((stage_of(id)?, state.failed.remove(&id)?))) {
        return Err(error);
    }
    let mut found = state.found;
    for &port in keep {
        if let Some(Slot::Known(data, hashes)) = state.slots.get(port.expr) {
            found.kept.extend(data.get(port.slot as usize).map(|datum| (port, datum.clone())));
            found.hashes.extend(hashes.get(port.slot as usize).map(|hash| (port, *hash)));
        }
    }
    Ok(found)
}

type Data = Arc<Vec<Datum>>;
type Hashes = Arc<Vec<Hash>>;

/// Results of an expression.
#[derive(Clone, Debug)]
enum Slot {
    Pending,
    Known(Data, Hashes),
    Failed,
    Dropped,
}

/// An operator applied to certain contents.
enum Memo {
    /// Some thread is at it; these expressions wait.
    Running(Vec<usize>),
    /// It is done; the results are there as long as an expression holds them.
    Done(Weak<Vec<Datum>>, Hashes),
}

/// Something that can be done: those of a smaller order first, comparisons before evaluation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    order: usize,
    evaluates: bool,
    index: usize,
}

struct State {
    slots: Vec<Slot>,
    /// Uses that an expression's results still have.
    uses: Vec<usize>,
    /// Operands that an expression waits for.
    waiting: Vec<usize>,
    /// Expressions and requests that wait for an expression.
    users: Vec<Vec<usize>>,
    watchers: Vec<Vec<usize>>,
    requests: Vec<Option<Request>>,
    /// Values that a request waits for.
    missing: Vec<usize>,
    ready: BinaryHeap<Reverse<Task>>,
    memo: HashMap<Hash, Memo>,
    /// Comparisons that were made, by the contents of both sides.
    compared: HashMap<(Hash, Hash), Outcome>,
    failed: BTreeMap<usize, InterpError>,
    /// Tasks that are not done.
    left: usize,
    stop: bool,
    found: Evaluated,
}

impl State {
    fn new(exprs: &Exprs, requests: Vec<Request>, keep: &[Port]) -> State {
        let count = exprs.all().len();
        let mut state = State {
            slots: vec![Slot::Pending; count],
            uses: vec![0; count],
            waiting: vec![0; count],
            users: vec![Vec::new(); count],
            watchers: vec![Vec::new(); count],
            missing: vec![0; requests.len()],
            requests: Vec::new(),
            ready: BinaryHeap::new(),
            memo: HashMap::new(),
            compared: HashMap::new(),
            failed: BTreeMap::new(),
            left: requests.len(),
            stop: false,
            found: Evaluated { outcomes: vec![Outcome::Missing; requests.len()], ..Evaluated::default() },
        };
        let mut needed = vec![false; count];
        for (index, request) in requests.iter().enumerate() {
            for expr in distinct(ports(request)) {
                state.uses[expr] += 1;
                state.watchers[expr].push(index);
                state.missing[index] += 1;
                needed[expr] = true;
            }
            state.missing[index] += usize::from(matches!(request.left, Side::Later));
        }
        for port in keep {
            state.uses[port.expr] += 1;
            needed[port.expr] = true;
        }
        for (id, expr) in exprs.all().iter().enumerate().rev() {
            if !needed[id] {
                continue;
            }
            state.left += 1;
            for operand in distinct(expr.operands.iter().flatten().copied()) {
                needed[operand] = true;
                state.uses[operand] += 1;
                state.users[operand].push(id);
                state.waiting[id] += 1;
            }
            if state.waiting[id] == 0 {
                state.ready.push(Reverse(Task { order: expr.order, evaluates: true, index: id }));
            }
        }
        state.requests = requests.into_iter().map(Some).collect();
        state
    }

    /// Notes the results of an expression and wakes what waits for them.
    fn complete(&mut self, exprs: &Exprs, id: usize, slot: Slot) {
        self.left -= 1;
        if let Slot::Known(data, _) = &slot {
            for (at, datum) in data.iter().enumerate() {
                if let Datum::Tensor(tensor) = datum {
                    let port = Port { expr: id, slot: at as u32 };
                    self.found.shapes.insert(port, tensor.shape().to_vec());
                }
            }
        }
        self.slots[id] = if self.uses[id] == 0 { Slot::Dropped } else { slot };
        for user in std::mem::take(&mut self.users[id]) {
            self.waiting[user] -= 1;
            if self.waiting[user] == 0 {
                let order = exprs.all().get(user).map_or(0, |expr| expr.order);
                self.ready.push(Reverse(Task { order, evaluates: true, index: user }));
            }
        }
        let order = exprs.all().get(id).map_or(0, |expr| expr.order);
        for request in std::mem::take(&mut self.watchers[id]) {
            self.missing[request] -= 1;
            if self.missing[request] == 0 {
                self.ready.push(Reverse(Task { order, evaluates: false, index: request }));
            }
        }
        if let Some(expr) = exprs.all().get(id) {
            distinct(expr.operands.iter().flatten().copied()).for_each(|operand| self.release(operand));
        }
    }

    /// Notes what an operator gave, for its expression and those that wait for the same.
    fn applied(&mut self, exprs: &Exprs, id: usize, key: Hash, outcome: Result<(Data, Hashes), InterpError>) {
        let slot = match outcome {
            Ok((data, hashes)) => Slot::Known(data, hashes),
            Err(error) => {
                self.stop |= exprs.all().get(id).is_some_and(|expr| expr.stage.is_some());
                self.failed.insert(id, error);
                Slot::Failed
            }
        };
        let before = match &slot {
            Slot::Known(data, hashes) => {
                self.memo.insert(key, Memo::Done(Arc::downgrade(data), hashes.clone()))
            }
            _ => self.memo.remove(&key),
        };
        let waiting = match before {
            Some(Memo::Running(waiting)) => waiting,
            Some(Memo::Done(..)) | None => Vec::new(),
        };
        for other in waiting {
            match &slot {
                Slot::Known(..) => self.complete(exprs, other, slot.clone()),
                // It fails by itself, so that the error is its own.
                _ => {
                    let order = exprs.all().get(other).map_or(0, |expr| expr.order);
                    self.ready.push(Reverse(Task { order, evaluates: true, index: other }));
                }
            }
        }
        self.complete(exprs, id, slot);
    }

    fn release(&mut self, id: usize) {
        self.uses[id] -= 1;
        if self.uses[id] == 0 {
            self.slots[id] = Slot::Dropped;
        }
    }

    /// The hash of an operator and the contents of its operands; `None` if one of those failed.
    fn key(&self, exprs: &Exprs, id: usize) -> Option<Hash> {
        let expr = exprs.all().get(id)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&expr.signature);
        for operand in &expr.operands {
            match operand {
                None => {
                    hasher.update(b"-");
                }
                Some(port) => match self.slots.get(port.expr) {
                    Some(Slot::Known(_, hashes)) => {
                        hasher.update(hashes.get(port.slot as usize)?);
                    }
                    _ => return None,
                },
            }
        }
        Some(*hasher.finalize().as_bytes())
    }

    fn hash(&self, port: Port) -> Option<Hash> {
        match self.slots.get(port.expr) {
            Some(Slot::Known(_, hashes)) => hashes.get(port.slot as usize).copied(),
            _ => None,
        }
    }

    fn datum(&self, port: Port) -> Option<(Data, usize)> {
        match self.slots.get(port.expr) {
            Some(Slot::Known(data, _)) => Some((data.clone(), port.slot as usize)),
            _ => None,
        }
    }
}

fn ports(request: &Request) -> impl Iterator<Item = Port> {
    let left = match request.left {
        Side::Port(port) => Some(port),
        Side::Bytes(..) | Side::Tensor(_) | Side::Later | Side::Nothing => None,
    };
    left.into_iter().chain([request.right])
}

/// The expressions of ports, each once.
fn distinct(ports: impl Iterator<Item = Port>) -> impl Iterator<Item = usize> {
    let mut exprs: Vec<usize> = ports.map(|port| port.expr).collect();
    exprs.sort_unstable();
    exprs.dedup();
    exprs.into_iter()
}

struct Shared<'a> {
    exprs: &'a Exprs,
    state: Mutex<State>,
    changed: Condvar,
}

/// Stops all threads when one of them panics, so that the panic comes out.
struct StopOnPanic<'a, 'b>(&'a Shared<'b>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().stop = true;
            self.0.changed.notify_all();
        }
    }
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what was late to the comparisons that wait for it.
    fn deliver(&self, late: &mut dyn Late) {
        let _guard = StopOnPanic(self);
        let mut state = self.lock();
        let state = &mut *state;
        let sides = late.tell();
        state.stop |= sides.is_none();
        let mut sides = sides.unwrap_or_default();
        for (index, request) in state.requests.iter_mut().enumerate() {
            let Some(request) = request.as_mut().filter(|request| matches!(request.left, Side::Later)) else {
                continue;
            };
            request.left = sides.remove(&index).unwrap_or(Side::Nothing);
            state.missing[index] -= 1;
            if state.missing[index] == 0 {
                let order = self.exprs.all().get(request.right.expr).map_or(0, |expr| expr.order);
                state.ready.push(Reverse(Task { order, evaluates: false, index }));
            }
        }
        self.changed.notify_all();
    }

    /// Does tasks until none is left.
    fn work(&self) {
        let _guard = StopOnPanic(self);
        loop {
            let mut state = self.lock();
            let task = loop {
                if state.stop || state.left == 0 {
                    self.changed.notify_all();
                    return;
                }
                match state.ready.pop() {
                    Some(Reverse(task)) => break task,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            if task.evaluates {
                self.expression(state, task.index)
            } else {
                self.request(state, task.index)
            }
            self.changed.notify_all();
        }
    }

    fn expression(&self, mut state: MutexGuard<'_, State>, id: usize) {
        let Some(expr) = self.exprs.all().get(id) else { return };
        let node = match &expr.work {
            Work::Leaf(datum) => {
                let known = Slot::Known(Arc::new(vec![datum.clone()]), Arc::new(vec![expr.signature]));
                return state.complete(self.exprs, id, known);
            }
            Work::Node(node) => node,
        };
        let Some(key) = state.key(self.exprs, id) else {
            return state.complete(self.exprs, id, Slot::Failed);
        };
        match state.memo.get_mut(&key) {
            Some(Memo::Running(waiting)) => return waiting.push(id),
            Some(Memo::Done(data, hashes)) => {
                if let Some(data) = data.upgrade() {
                    let known = Slot::Known(data, hashes.clone());
                    return state.complete(self.exprs, id, known);
                }
            }
            None => {}
        }
        state.memo.insert(key, Memo::Running(Vec::new()));
        state.found.applied += 1;
        let operands: Vec<Option<(Data, usize)>> =
            expr.operands.iter().map(|port| port.and_then(|port| state.datum(port))).collect();
        drop(state);
        let data: Vec<Option<&Datum>> =
            operands.iter().map(|o| o.as_ref().and_then(|(data, slot)| data.get(*slot))).collect();
        let outcome = run_node(node, &data).map(|results| {
            let hashes: Vec<Hash> = results.iter().map(hash_of).collect();
            (Arc::new(results), Arc::new(hashes))
        });
        drop(data);
        drop(operands);
        self.lock().applied(self.exprs, id, key, outcome);
    }

    fn request(&self, mut state: MutexGuard<'_, State>, index: usize) {
        let Some(request) = state.requests.get_mut(index).and_then(Option::take) else { return };
        let right = state.datum(request.right);
        let (left, hashes) = match &request.left {
            Side::Port(port) => (state.datum(*port), state.hash(*port).zip(state.hash(request.right))),
            Side::Bytes(..) | Side::Tensor(_) | Side::Later | Side::Nothing => (None, None),
        };
        let known = hashes.and_then(|hashes| state.compared.get(&hashes).cloned());
        drop(state);
        let same = hashes.filter(|(left, right)| left == right).and(right.as_ref());
        let outcome = match same.and_then(|(data, slot)| data.get(*slot)?.tensor()) {
            Some(tensor) => Outcome::Apart(Difference::none(tensor.shape().iter().product())),
            None => known.unwrap_or_else(|| compared(&request.left, &left, &right)),
        };
        drop((left, right));
        let mut state = self.lock();
        if let Some(hashes) = hashes {
            state.compared.insert(hashes, outcome.clone());
        }
        state.found.outcomes[index] = outcome;
        state.left -= 1;
        distinct(ports(&request)).for_each(|expr| state.release(expr));
    }
}

fn compared(side: &Side, left: &Option<(Data, usize)>, right: &Option<(Data, usize)>) -> Outcome {
    let tensor = |held: &'_ Option<(Data, usize)>| {
        held.as_ref().and_then(|(data, slot)| data.get(*slot).and_then(Datum::tensor).cloned())
    };
    let Some(right) = tensor(right) else { return Outcome::Missing };
    let left = match side {
        Side::Port(_) => tensor(left),
        Side::Tensor(tensor) => Some(tensor.clone()),
        Side::Later | Side::Nothing => None,
        Side::Bytes(dtype, _) if *dtype != right.dtype() => {
            return Outcome::Unlike(format!("held as {dtype}, not {}", right.dtype()));
        }
        Side::Bytes(dtype, bytes) => match Tensor::from_bytes(*dtype, right.shape(), bytes.clone()) {
            Ok(tensor) => Some(tensor),
            Err(_) => {
                let (held, own) = (bytes.len(), right.bytes().len());
                return Outcome::Unlike(format!("its buffer has {held} bytes, the value {own}"));
            }
        },
    };
    let Some(left) = left else { return Outcome::Missing };
    let text = |t: &Tensor| format!("{}{:?}", t.dtype(), t.shape());
    match Difference::of(&left, &right) {
        Some(difference) => Outcome::Apart(difference),
        None => Outcome::Unlike(format!("{}, expected {}", text(&left), text(&right))),
    }
}
