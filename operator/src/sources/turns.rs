//! Whose question a server gets next.
//!
//! Each server is asked a few questions at once, so that one that lets everybody wait keeps nobody from the others. Of
//! those that wait for it, namespaces come one after the other, and none of them has more than its share under way:
//! thousands of metrics of one tenant, or slow ones, delay another tenant's by one round at most.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// How many questions a server gets at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From everybody.
    pub(super) all: usize,
    /// From one namespace.
    pub(super) of_one: usize,
}

/// Questions that wait, and how many are under way. `B` names a server.
pub(super) struct Turns<B, T> {
    servers: HashMap<B, Server<T>>,
    /// Servers at which a question may have become possible since they were last looked at; each once.
    stirred: VecDeque<B>,
}

struct Server<T> {
    bounds: Bounds,
    under_way: usize,
    by_namespace: HashMap<String, Line<T>>,
    /// The namespaces with questions that wait, in the order of their turns; each once.
    round: VecDeque<String>,
    stirred: bool,
}

/// The questions of one namespace to one server, in the order of arrival.
struct Line<T> {
    under_way: usize,
    waiting: VecDeque<T>,
}

/// A question that may be asked now; [`Turns::end`] has to follow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn<B, T> {
    pub(super) server: B,
    pub(super) namespace: String,
    pub(super) question: T,
}

impl<B: Clone + Eq + Hash, T> Turns<B, T> {
    pub(super) fn new() -> Self {
        Self { servers: HashMap::new(), stirred: VecDeque::new() }
    }

    /// A question waits for its turn.
    pub(super) fn wait(&mut self, server: &B, bounds: Bounds, namespace: &str, question: T) {
        let at = self.servers.entry(server.clone()).or_insert_with(|| Server {
            bounds,
            under_way: 0,
            by_namespace: HashMap::new(),
            round: VecDeque::new(),
            stirred: false,
        });
        let line = at
            .by_namespace
            .entry(namespace.to_owned())
            .or_insert_with(|| Line { under_way: 0, waiting: VecDeque::new() });
        if line.waiting.is_empty() {
            at.round.push_back(namespace.to_owned());
        }
        line.waiting.push_back(question);
        self.stir(server);
    }

    /// The next question, if there is one that may be asked.
    pub(super) fn next(&mut self) -> Option<Turn<B, T>> {
        while let Some(server) = self.stirred.pop_front() {
            let Some(at) = self.servers.get_mut(&server) else { continue };
            if let Some((namespace, question)) = at.next() {
                // Behind the others, which also get their turn.
                self.stirred.push_back(server.clone());
                return Some(Turn { server, namespace, question });
            }
            at.stirred = false;
        }
        None
    }

    /// A question of a namespace to a server has ended.
    pub(super) fn end(&mut self, server: &B, namespace: &str) {
        let Some(at) = self.servers.get_mut(server) else { return };
        at.under_way = at.under_way.saturating_sub(1);
        if let Some(line) = at.by_namespace.get_mut(namespace) {
            line.under_way = line.under_way.saturating_sub(1);
            if line.under_way == 0 && line.waiting.is_empty() {
                at.by_namespace.remove(namespace);
            }
        }
        if at.by_namespace.is_empty() {
            self.servers.remove(server);
        } else {
            self.stir(server);
        }
    }

    fn stir(&mut self, server: &B) {
        if let Some(at) = self.servers.get_mut(server)
            && !at.stirred
        {
            at.stirred = true;
            self.stirred.push_back(server.clone());
        }
    }
}

impl<T> Server<T> {
    fn next(&mut self) -> Option<(String, T)> {
        if self.under_way >= self.bounds.all {
            return None;
        }
        // At most a few of them have their share under way: as many as shares fit into the bound.
        for _ in 0..self.round.len() {
            let namespace = self.round.pop_front()?;
            let Some(line) = self.by_namespace.get_mut(&namespace) else { continue };
            if line.under_way >= self.bounds.of_one {
                self.round.push_back(namespace);
                continue;
            }
            let Some(question) = line.waiting.pop_front() else { continue };
            line.under_way += 1;
            self.under_way += 1;
            if !line.waiting.is_empty() {
                self.round.push_back(namespace.clone());
            }
            return Some((namespace, question));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { all: 8, of_one: 2 };

    fn taken(turns: &mut Turns<u8, u32>) -> Vec<(u8, String, u32)> {
        std::iter::from_fn(|| turns.next().map(|turn| (turn.server, turn.namespace, turn.question))).collect()
    }

    #[test]
    fn namespaces_take_turns_and_none_has_more_than_its_share() {
        let mut turns = Turns::new();
        for question in 0..1000 {
            turns.wait(&0, BOUNDS, "many", question);
        }
        turns.wait(&0, BOUNDS, "few", 1);
        let turn = |namespace: &str, question| (0, namespace.to_owned(), question);
        assert_eq!(taken(&mut turns), [turn("many", 0), turn("few", 1), turn("many", 1)], "two of a share of two");
        turns.wait(&0, BOUNDS, "late", 2);
        assert_eq!(taken(&mut turns), [turn("late", 2)], "it does not wait for the thousand before it");
        turns.end(&0, "many");
        assert_eq!(taken(&mut turns), [turn("many", 2)]);
        turns.end(&0, "few");
        assert_eq!(taken(&mut turns), [], "the other's end gives no more than the share");
    }

    #[test]
    fn a_server_that_lets_everybody_wait_keeps_nobody_from_another() {
        let mut turns = Turns::new();
        for question in 0..20 {
            turns.wait(&0, BOUNDS, &format!("n{question}"), question);
        }
        turns.wait(&1, BOUNDS, "n0", 100);
        let asked = taken(&mut turns);
        assert_eq!(asked.iter().filter(|(server, ..)| *server == 0).count(), BOUNDS.all);
        assert!(asked.contains(&(1, "n0".to_owned(), 100)));
        turns.end(&0, "n0");
        assert_eq!(taken(&mut turns), [(0, "n8".to_owned(), 8)], "whoever has waited longest");
    }

    proptest! {
        /// Whatever comes and ends in whatever order: bounds hold, questions of a namespace to a server keep their
        /// order, nothing that could be asked waits, all are asked in the end, and nothing is left behind.
        #[test]
        fn every_question_has_its_turn_within_the_bounds(
            steps in prop::collection::vec((0u8..3, 0u8..6, any::<bool>()), 1..200),
        ) {
            let (mut turns, mut asked) = (Turns::new(), Vec::new());
            let mut open: Vec<(u8, String)> = Vec::new();
            type Asked = Vec<(u8, String, u32)>;
            let settle = |turns: &mut Turns<u8, u32>, open: &mut Vec<(u8, String)>, asked: &mut Asked| {
                for turn in taken(turns) {
                    open.push((turn.0, turn.1.clone()));
                    asked.push(turn);
                }
            };
            let mut sent = 0;
            for (server, namespace, ends) in steps {
                if ends && !open.is_empty() {
                    let (server, namespace) = open.remove(usize::from(namespace) % open.len());
                    turns.end(&server, &namespace);
                } else {
                    turns.wait(&server, BOUNDS, &format!("n{namespace}"), sent);
                    sent += 1;
                }
                settle(&mut turns, &mut open, &mut asked);
                for server in 0..3 {
                    let here: Vec<_> = open.iter().filter(|(at, _)| *at == server).collect();
                    prop_assert!(here.len() <= BOUNDS.all);
                    for namespace in (0..6).map(|n| format!("n{n}")) {
                        let own = here.iter().filter(|(_, of)| *of == namespace).count();
                        prop_assert!(own <= BOUNDS.of_one);
                        let waits = turns.servers.get(&server)
                            .and_then(|at| at.by_namespace.get(&namespace))
                            .is_some_and(|line| !line.waiting.is_empty());
                        prop_assert!(!waits || own == BOUNDS.of_one || here.len() == BOUNDS.all, "it could be asked");
                    }
                }
            }
            while let Some((server, namespace)) = open.pop() {
                turns.end(&server, &namespace);
                settle(&mut turns, &mut open, &mut asked);
            }
            prop_assert_eq!(u32::try_from(asked.len()), Ok(sent));
            let mut last = HashMap::new();
            for (server, namespace, question) in asked {
                let before = last.insert((server, namespace), question);
                prop_assert!(before.is_none_or(|before| before < question));
            }
            prop_assert!(turns.servers.is_empty());
        }
    }
}
