//! The language in which the true chains of a program are written.

use super::check::Checker;
use super::pattern::{Language, OwnNames, Pattern, Symbols};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

/// The true chains of a program.
///
/// ```text
/// # a comment
/// start:                        a definition; `start` holds the roots
///   main.main                   a frame that a root may be …
///     main.work                 … and one that main.main calls
///       main.leaf | main.other  either of two
///       runtime.wrapper?        perhaps a frame: what is below it may also be called directly
///         main.behind
///       @work                   whatever the definition `work` holds
///       c:f0;c:f1;c:f2 x100     a path, here with three frames a hundred times over
///
/// work:
///   <go-runtime>+               one or more frames of a class
/// ```
///
/// A name is that of a Go function, or has a prefix that says who knows it: `c:` a function that the
/// executable's own symbol table names, `inlined:` one that the compiler put inside others, `exported:` one that
/// the executable exports dynamically, `libc:` one of a system library (which may be nameless). `*` in a name
/// stands for any characters.
///
/// A stack may end at any frame. The definitions `below-go` and `below-c`, where they exist, hold what may
/// follow every frame of that language: calls into the runtime, signal handlers.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    nodes: Vec<Node>,
    definitions: BTreeMap<String, Vec<Callee>>,
}

#[derive(Clone, Debug)]
struct Node {
    patterns: Vec<Pattern>,
    count: Count,
    callees: Vec<Callee>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    One,
    Optional,
    OneOrMore,
}

#[derive(Clone, Debug)]
enum Callee {
    Node(usize),
    Definition(String),
}

impl Spec {
    /// Reads files of definitions one after the other; `(name, text)`, where the name is for messages.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut spec = Self::default();
        for (name, text) in files {
            spec.add(text).with_context(|| name.to_owned())?;
        }
        Ok(spec)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let mut definition = String::new();
        // The innermost nodes of the paths that a deeper line may continue, by depth.
        let mut open: Vec<usize> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim_end();
            let item = line.trim_start();
            if item.is_empty() {
                continue;
            }
            let place = || format!("line {}: {item:?}", number + 1);
            let indent = line.len() - item.len();
            if indent == 0 {
                definition = item.strip_suffix(':').with_context(place)?.to_owned();
                self.definitions.entry(definition.clone()).or_default();
                open.clear();
                continue;
            }
            let depth = indent / 2 - 1;
            ensure!(
                indent % 2 == 0 && depth <= open.len() && !definition.is_empty(),
                "{}: nothing for it to be below",
                place()
            );
            open.truncate(depth);
            let caller = open.last().copied();
            let first = match item.strip_prefix('@') {
                Some(included) => Callee::Definition(included.to_owned()),
                None => {
                    let (first, last) = self.path(item).with_context(place)?;
                    open.push(last);
                    Callee::Node(first)
                }
            };
            match caller {
                Some(node) => self.nodes[node].callees.push(first),
                None => self
                    .definitions
                    .entry(definition.clone())
                    .or_default()
                    .push(first),
            }
        }
        Ok(())
    }

    /// Adds the nodes of `frame;frame;… xN` and gives the outermost and the innermost.
    fn path(&mut self, text: &str) -> Result<(usize, usize)> {
        let (path, times) = match text.rsplit_once(" x") {
            Some((path, n)) if n.bytes().all(|b| b.is_ascii_digit()) => (path, n.parse()?),
            _ => (text, 1),
        };
        ensure!(times > 0, "a path that is there no times");
        let first = self.nodes.len();
        for _ in 0..times {
            for frame in path.split(';') {
                let node = Node::parse(frame)?;
                let at = self.nodes.len();
                self.nodes.push(node);
                if at > first {
                    self.nodes[at - 1].callees.push(Callee::Node(at));
                }
            }
        }
        Ok((first, self.nodes.len() - 1))
    }

    /// Resolves everything that the specification refers to.
    pub fn checker(&self, symbols: Symbols) -> Result<Checker> {
        let mut own = OwnNames::default();
        self.nodes
            .iter()
            .flat_map(|node| &node.patterns)
            .for_each(|p| own.insert(p));
        let below = |language| {
            let name = match language {
                Language::Go => "below-go",
                Language::C => "below-c",
            };
            self.definitions.get(name).map_or(&[][..], Vec::as_slice)
        };
        let mut next = Vec::with_capacity(self.nodes.len());
        for (at, node) in self.nodes.iter().enumerate() {
            let mut reached = Reached::new(self);
            if node.count == Count::OneOrMore {
                reached.add_node(at)?;
            }
            reached.add(&node.callees)?;
            if let Some(language) = node.patterns.iter().find_map(Pattern::language) {
                reached.add(below(language))?;
            }
            next.push(reached.nodes);
        }
        let start = self
            .definitions
            .get("start")
            .context("there is no definition of `start`")?;
        let mut roots = Reached::new(self);
        roots.add(start)?;
        let patterns = self.nodes.iter().map(|node| node.patterns.clone()).collect();
        Ok(Checker::new(patterns, next, roots.nodes, symbols, own))
    }
}

impl Node {
    fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let (alternatives, count) = match text.as_bytes().last() {
            Some(b'?') => (&text[..text.len() - 1], Count::Optional),
            Some(b'+') => (&text[..text.len() - 1], Count::OneOrMore),
            _ => (text, Count::One),
        };
        let patterns = alternatives
            .split(" | ")
            .map(|name| Pattern::parse(name.trim()))
            .collect::<Result<_>>()?;
        Ok(Self {
            patterns,
            count,
            callees: Vec::new(),
        })
    }
}

/// The nodes that may match the next frame.
struct Reached<'a> {
    spec: &'a Spec,
    nodes: Vec<usize>,
    definitions: Vec<&'a str>,
}

impl<'a> Reached<'a> {
    fn new(spec: &'a Spec) -> Self {
        Self {
            spec,
            nodes: Vec::new(),
            definitions: Vec::new(),
        }
    }

    fn add(&mut self, callees: &'a [Callee]) -> Result<()> {
        for callee in callees {
            match callee {
                Callee::Node(node) => self.add_node(*node)?,
                Callee::Definition(name) if self.definitions.contains(&name.as_str()) => {}
                Callee::Definition(name) => {
                    self.definitions.push(name);
                    let Some(callees) = self.spec.definitions.get(name) else {
                        bail!("there is no definition of `{name}`");
                    };
                    self.add(callees)?;
                }
            }
        }
        Ok(())
    }

    fn add_node(&mut self, node: usize) -> Result<()> {
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
            if self.spec.nodes[node].count == Count::Optional {
                self.add(&self.spec.nodes[node].callees)?;
            }
        }
        Ok(())
    }
}
