//! Tells a history in words: what happened, what was planned and why, what there is then.

use std::fmt::Write as _;

use catamaran_crds::Hull;

use crate::simulator::{Choice, Scenario, Wish, World};

/// A history and its telling.
pub struct Story {
    pub scenario: Scenario,
    pub world: World,
    text: String,
    last: String,
}

impl Story {
    /// Begins with the first wish.
    pub fn new(wishes: Vec<Wish>, broken: &[u8]) -> Self {
        Self { scenario: Scenario::new(wishes, broken), world: World::new(), text: String::new(), last: String::new() }
    }

    /// A heading.
    pub fn say(&mut self, what: &str) {
        writeln!(self.text, "\n## {what}").expect("a string takes all");
    }

    /// The user changes to another wish.
    pub fn user(&mut self, wish: usize, what: &str) {
        self.say(what);
        self.happen(Choice::User(wish));
    }

    pub fn happen(&mut self, choice: Choice) {
        self.world.step(&self.scenario, choice).unwrap_or_else(|error| panic!("{choice:?}: {error}"));
    }

    /// One pass of the operator, told.
    pub fn pass(&mut self) {
        self.world.see_all(&self.scenario);
        let plan = self.world.planned(&self.scenario);
        let told = self.with_names(&plan.to_string());
        if told != self.last {
            writeln!(self.text, "\nafter {} s: {}", self.world.now, self.there()).expect("a string takes all");
            write!(self.text, "{told}").expect("a string takes all");
            for announcement in &plan.announcements {
                let note = self.with_names(&announcement.note);
                let kind = if announcement.warning { "Warning" } else { "Normal" };
                writeln!(self.text, "! {kind} {}: {note}", announcement.reason).expect("a string takes all");
            }
        }
        self.last = told;
        self.world.start(&self.scenario, &plan);
        while self.world.flight.is_some() {
            self.happen(Choice::Write);
        }
    }

    /// The replica-set controllers do their work.
    pub fn controllers(&mut self) {
        // Twice: a pass reports what there was before it scaled.
        for _ in 0..2 {
            for set in (0..self.world.sets.len()).rev() {
                self.happen(Choice::Controller { set, seed: 0 });
            }
        }
    }

    /// All replicas that can get ready do so.
    pub fn ready(&mut self) {
        for set in 0..self.world.sets.len() {
            for replica in 0..self.world.sets[set].replicas.len() {
                self.happen(Choice::Progress { set, replica });
            }
        }
        self.kubelets();
        self.controllers();
    }

    /// The kubelets look at what was resized.
    pub fn kubelets(&mut self) {
        for set in 0..self.world.sets.len() {
            for replica in 0..self.world.sets[set].replicas.len() {
                self.happen(Choice::Kubelet { set, replica });
            }
        }
    }

    /// Goes on until nothing more is written; a second passes with each round.
    pub fn run(&mut self) {
        for _ in 0..60 {
            let before = World { now: 0, ..self.world.clone() };
            self.pass();
            self.controllers();
            self.pass();
            self.ready();
            if before == (World { now: 0, ..self.world.clone() }) {
                return;
            }
            self.world.now += 1;
        }
        panic!("never comes to rest:\n{}", self.text);
    }

    /// Lets time pass until the operator looks again by itself.
    pub fn wait(&mut self) {
        self.world.see_all(&self.scenario);
        self.world.now = self.world.next_look(&self.scenario).expect("something to wait for");
    }

    /// The whole telling.
    pub fn told(self) -> String {
        self.text.trim().to_owned()
    }

    fn there(&self) -> String {
        let sets = self.world.sets.iter().map(|set| {
            let ready = set.available(0, self.world.now);
            let pause = if set.object.paused { ", paused" } else { "" };
            let name = self.with_names(&self.scenario.revisions[set.revision]);
            format!("{name} has {} of {} ({ready} ready{pause})", set.replicas.len(), set.object.asked)
        });
        let sets: Vec<String> = sets.collect();
        if sets.is_empty() { "nothing is there".to_owned() } else { sets.join("; ") }
    }

    /// Revisions by what they are, so that a story does not change with the hash.
    fn with_names(&self, text: &str) -> String {
        self.scenario.wishes.iter().zip(&self.scenario.desired).fold(text.to_owned(), |text, (wish, desired)| {
            let name = match wish.hull {
                Hull::Container => format!("image{}", wish.tag),
                Hull::VirtualMachine => format!("machine{}", wish.tag),
            };
            text.replace(&desired.revision, &name)
        })
    }
}
