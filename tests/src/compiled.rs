//! Graphs as compiled code.

use rabot::passes::default_pipeline;
use rabot::rewrite::PassCx;
use rabot::{Program, Session};
use rabot_filetest::Backend;
use rabot_ir::interp::Tensors;
use rabot_ir::{Graph, text};
use rabot_target::Profile;
use std::cell::RefCell;

/// The graph after the default pipeline.
///
/// **Errors**: a pass fails, in words.
pub fn optimized(graph: &Graph) -> Result<Graph, String> {
    let mut graph = graph.clone();
    default_pipeline().run(&mut graph, &PassCx::default(), &mut |_, _| {}).map_err(|e| e.to_string())?;
    Ok(graph)
}

/// The graph as it is, compiled.
///
/// **Errors**: it cannot be planned or compiled, in words.
pub fn program(graph: &Graph, profile: &Profile) -> Result<Program, String> {
    let plan = rabot::lower(graph, profile).map_err(|e| e.to_string())?;
    Program::new(plan, profile).map_err(|e| e.to_string())
}

/// Evaluates graphs by compiling them. A graph that comes again is not compiled again: one program then serves
/// inputs of several sizes.
#[derive(Debug)]
pub struct Compiled {
    profile: Profile,
    optimize: bool,
    last: RefCell<Option<(String, Session)>>,
}

impl Compiled {
    /// For a level, with or without the default pipeline before.
    pub fn new(profile: Profile, optimize: bool) -> Self {
        Compiled { profile, optimize, last: RefCell::new(None) }
    }

    /// What it is, for messages.
    pub fn name(&self) -> String {
        format!("{}{}", self.profile.name, if self.optimize { ", default pipeline" } else { "" })
    }

    fn session(&self, graph: &Graph) -> Result<Session, String> {
        let program = match self.optimize {
            true => program(&optimized(graph)?, &self.profile)?,
            false => program(graph, &self.profile)?,
        };
        Session::new(&program).map_err(|e| e.to_string())
    }
}

impl Backend for Compiled {
    fn run(&self, graph: &Graph, inputs: &Tensors) -> Result<Tensors, String> {
        let text = text::print(graph);
        let mut last = self.last.borrow_mut();
        let session = match last.take() {
            Some((known, session)) if known == text => session,
            _ => self.session(graph)?,
        };
        let (_, session) = last.insert((text, session));
        session.run(inputs).map_err(|e| e.to_string())
    }
}
