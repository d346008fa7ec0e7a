//! One cgroup, held to what it should say.
//!
//! What was found before the agent's first write, and what the agent wrote last, are noted at the cgroup itself, in an
//! extended attribute. So an agent that starts again, or another one, knows what to set back and what the runtime wrote
//! in the meantime; and the note goes with the cgroup.

use std::{collections::BTreeMap, fmt::Write as _, io};

use rustix::io::Errno;

use crate::{
    cgroup::CgroupFiles,
    files,
    knobs::{Limit, Slot},
};

/// Holds one cgroup.
#[derive(Debug)]
pub struct Holder<F> {
    files: F,
    /// What each slot that the agent set said before.
    before: BTreeMap<Slot, Limit>,
    /// What an agent wrote last, or found to be right.
    ours: BTreeMap<Slot, Limit>,
}

/// Why something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is wanted since now.
    Apply,
    /// Somebody else had written another value.
    Reassert,
    /// It is no longer wanted.
    Undo,
}

/// What one look at a cgroup came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was written.
    pub writes: Vec<(Slot, Why)>,
    /// What is not as it should be, and why.
    pub failures: Vec<(Slot, String)>,
    /// Why nothing can be noted: after a restart of the agent it will not be known what to set back.
    pub note_failed: Option<String>,
}

impl<F: CgroupFiles> Holder<F> {
    /// Takes up what an agent before this one noted.
    #[must_use]
    pub fn open(files: F) -> Self {
        // Where there are no notes there is none; the first one that is written says so.
        let note = files.note().unwrap_or_default();
        let (mut before, mut ours) = (BTreeMap::new(), BTreeMap::new());
        for Noted { slot, found, written } in note.lines().filter_map(Noted::parse) {
            before.insert(slot, found);
            ours.extend(written.map(|written| (slot, written)));
        }
        Self { files, before, ours }
    }

    /// The cgroup.
    #[must_use]
    pub fn files(&self) -> &F {
        &self.files
    }

    /// How many slots are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.before.len()
    }

    /// Compares and writes: what is wanted is set, what no longer is is set back.
    pub fn step(&mut self, wanted: &BTreeMap<Slot, Limit>) -> Outcome {
        let mut outcome = Outcome::default();
        self.undo(wanted, &mut outcome);
        let mut texts = Texts { files: &self.files, read: BTreeMap::new() };
        // Noted first, written then: whatever happens in between, there is a way back.
        let written = std::mem::take(&mut self.ours);
        let mut noted = true;
        for (slot, want) in wanted {
            if let Ok(found) = texts.found(*slot) {
                let before = self.before.get(slot);
                // The runtime sets it, and has done so since.
                let runtime = slot.follows_the_runtime()
                    && found != *want
                    && written.get(slot).is_some_and(|written| *written != found);
                if before.is_none() || (runtime && before != Some(&found)) {
                    self.before.insert(*slot, found);
                    noted = false;
                }
            }
            noted &= written.get(slot) == Some(want);
            self.ours.insert(*slot, *want);
        }
        if !noted {
            outcome.note_failed = note(&self.files, &self.before, &self.ours).err();
        }
        for (slot, want) in wanted {
            let found = match texts.found(*slot) {
                Ok(found) => found,
                Err(reason) => {
                    outcome.failures.push((*slot, reason));
                    continue;
                }
            };
            if found != *want {
                let why = if written.get(slot) == Some(want) { Why::Reassert } else { Why::Apply };
                outcome.writes.push((*slot, why));
                if let Err(reason) = texts.set(*slot, *want) {
                    outcome.failures.push((*slot, reason));
                    continue;
                }
            }
            if *slot == Slot::Freeze && *want == Limit::At(1) && !frozen(&self.files) {
                outcome.failures.push((*slot, "not all processes are frozen yet".to_owned()));
            }
        }
        outcome
    }

    fn undo(&mut self, wanted: &BTreeMap<Slot, Limit>, outcome: &mut Outcome) {
        let unwanted: Vec<_> = self.before.iter().filter(|(slot, _)| !wanted.contains_key(slot)).collect();
        if unwanted.is_empty() {
            return;
        }
        let mut done = Vec::new();
        for (slot, before) in unwanted {
            let found = self.files.text(slot.file()).ok().flatten().and_then(|text| slot.read(&text));
            let ours = self.ours.get(slot);
            // The runtime has set another value since: that one stays.
            let theirs = slot.follows_the_runtime() && ours.is_some() && found.as_ref() != ours;
            if found == Some(*before) || theirs {
                done.push(*slot);
                continue;
            }
            match self.files.write(slot.file(), &slot.line(*before)) {
                Ok(()) => {
                    outcome.writes.push((*slot, Why::Undo));
                    done.push(*slot);
                }
                // The cgroup or the device is gone, and the value with it.
                Err(error) if gone(&error) => done.push(*slot),
                Err(error) => outcome.failures.push((*slot, format!("cannot be set back: {error}"))),
            }
        }
        for slot in &done {
            self.before.remove(slot);
            self.ours.remove(slot);
        }
        if !done.is_empty() {
            outcome.note_failed = note(&self.files, &self.before, &self.ours).err();
        }
    }
}

/// A line of the note.
#[derive(Debug, PartialEq, Eq)]
struct Noted {
    slot: Slot,
    /// Before the first write of an agent, or by the runtime since.
    found: Limit,
    /// By an agent; agents up to 0.1.0 did not note it.
    written: Option<Limit>,
}

impl Noted {
    /// The reverse of [`note`]: `memory.high max 1048576`, `io.max 8:0 rbps max`.
    fn parse(line: &str) -> Option<Self> {
        let (rest, last) = line.rsplit_once(' ')?;
        let last = Limit::parse(last)?;
        let two = rest.rsplit_once(' ').and_then(|(slot, found)| Slot::parse(slot).zip(Limit::parse(found)));
        match two {
            Some((slot, found)) => Some(Self { slot, found, written: Some(last) }),
            None => Some(Self { slot: Slot::parse(rest)?, found: last, written: None }),
        }
    }
}

/// The texts of files, each read once.
struct Texts<'a, F> {
    files: &'a F,
    read: BTreeMap<&'static str, Result<String, String>>,
}

impl<F: CgroupFiles> Texts<'_, F> {
    fn found(&mut self, slot: Slot) -> Result<Limit, String> {
        let file = slot.file();
        let text = self.read.entry(file).or_insert_with(|| match self.files.text(file) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(format!("there is no {file}: the kernel or the container's cgroup lacks it")),
            Err(error) => Err(format!("{file} cannot be read: {error}")),
        });
        let text = text.as_ref().map_err(Clone::clone)?;
        slot.read(text).ok_or_else(|| format!("{file} has no value"))
    }

    /// Writes, and looks whether the kernel took it.
    fn set(&mut self, slot: Slot, want: Limit) -> Result<(), String> {
        self.read.remove(slot.file());
        self.files
            .write(slot.file(), &slot.line(want))
            .map_err(|error| format!("{slot} = {want} is refused: {error}"))?;
        match self.found(slot)? {
            found if found == want => Ok(()),
            found => Err(format!("{slot} = {want} was written, and is {found}")),
        }
    }
}

/// Whether the kernel has stopped every process; a kernel that does not say so is believed.
fn frozen(files: &impl CgroupFiles) -> bool {
    let events = files.text("cgroup.events").ok().flatten();
    events.and_then(|text| files::value(&text, "frozen")).is_none_or(|frozen| frozen == 1)
}

fn note(files: &impl CgroupFiles, before: &BTreeMap<Slot, Limit>, ours: &BTreeMap<Slot, Limit>) -> Result<(), String> {
    let mut text = String::new();
    for (slot, found) in before {
        // Writing to a String does not fail.
        let _ = match ours.get(slot) {
            Some(written) => writeln!(text, "{slot} {found} {written}"),
            None => writeln!(text, "{slot} {found}"),
        };
    }
    files.set_note(&text).map_err(|error| error.to_string())
}

fn gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV | Errno::NXIO))
}
