//! The autoscaler against the HPA controller of Kubernetes itself: random cases, and not one that the two decide
//! differently but for the differences on purpose, which are named.
//!
//! `CATAMARAN_HPA_CASES` sets how many cases, `CATAMARAN_HPA_SEED` which; `CATAMARAN_HPA_FILE` names a file of cases to
//! use instead.

use std::{env, fmt::Write as _, fs, path::Path, process::Command, str::FromStr, time::Instant};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    hpa_cases::{Deliberate, Difference, Outcome, ask, differences, generate, shrink},
    installation::binary,
    tools::{Tool, Tools},
};
use serde_json::{Value, json};

/// How many cases a run has at least.
const CASES: usize = 5_000;
/// How many of the disagreements are made small and shown; all of them are in the file.
const SHOWN: usize = 5;

#[test]
fn decisions_are_those_of_the_hpa() -> Result<()> {
    let both = Both::find()?;
    let (cases, origin) = cases()?;
    eprintln!("{} cases ({origin})", cases.len());
    let disagreements = both.disagreements(&cases)?;
    if disagreements.is_empty() {
        return Ok(());
    }

    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hpa-disagreements.jsonl");
    let lines: Vec<String> = disagreements.iter().map(|found| found.line().to_string()).collect();
    fs::write(&file, lines.join("\n") + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    let mut report = String::new();
    for found in disagreements.iter().take(SHOWN) {
        let small = both.shrink(found)?;
        let differ: Vec<String> = small.differ.iter().map(Difference::to_string).collect();
        writeln!(report, "\n{} differ in\n  {}", differ.join(", "), small.case)?;
        writeln!(report, "  HPA:       {}\n  Catamaran: {}", json!(small.hpa), json!(small.ours))?;
    }
    panic!(
        "{} of {} cases ({origin}) disagree; all are in {}\n{report}",
        disagreements.len(),
        cases.len(),
        file.display()
    );
}

/// The cases of this run, and what to say to have them again.
fn cases() -> Result<(Vec<Value>, String)> {
    if let Some(file) = env::var_os("CATAMARAN_HPA_FILE") {
        let file = Path::new(&file);
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let cases = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        return Ok((cases, format!("CATAMARAN_HPA_FILE={}", file.display())));
    }
    let count = number("CATAMARAN_HPA_CASES")?.unwrap_or(CASES);
    let seed = number("CATAMARAN_HPA_SEED")?.unwrap_or_else(|| rand::random::<u32>().into());
    let cases = generate(seed, count).iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    Ok((cases, format!("CATAMARAN_HPA_SEED={seed} CATAMARAN_HPA_CASES={count}")))
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> Result<Option<T>> {
    env::var(name).ok().map(|text| text.parse().with_context(|| format!("{name} is {text:?}"))).transpose()
}

/// The two that decide.
struct Both {
    hpa: Command,
    ours: Command,
}

/// A case that the two decide differently.
struct Disagreement {
    case: Value,
    hpa: Outcome,
    ours: Outcome,
    differ: Vec<Difference>,
}

impl Both {
    fn find() -> Result<Self> {
        let mut ours = Command::new(binary("kubectl-catamaran")?);
        ours.arg("decide");
        Ok(Self { hpa: Command::new(Tools::prepare(&[Tool::HpaOracle])?.path(Tool::HpaOracle)?), ours })
    }

    fn disagreements(&self, cases: &[Value]) -> Result<Vec<Disagreement>> {
        let start = Instant::now();
        let hpa = ask(&self.hpa, cases)?;
        let between = Instant::now();
        let ours = ask(&self.ours, cases)?;
        if cases.len() >= CASES {
            eprintln!("HPA {:.2?}, Catamaran {:.2?}", between - start, between.elapsed());
        }
        let mut disagreements = Vec::new();
        for ((case, hpa), ours) in cases.iter().zip(hpa).zip(ours) {
            ensure!(hpa.panic.is_none(), "the HPA crashes, so this is no case: {case}\n{hpa:?}");
            let differ = differences(&hpa, &ours);
            if !differ.is_empty() && Deliberate::between(case, &hpa, &ours).is_none() {
                disagreements.push(Disagreement { case: case.clone(), hpa, ours, differ });
            }
        }
        Ok(disagreements)
    }

    /// The smallest case that is found to differ in the same way.
    fn shrink(&self, found: &Disagreement) -> Result<Disagreement> {
        let small = shrink(found.case.clone(), |candidates| {
            // A candidate on which the HPA crashes is none.
            let (hpa, ours) = (ask(&self.hpa, candidates)?, ask(&self.ours, candidates)?);
            Ok(hpa
                .iter()
                .zip(&ours)
                .map(|(hpa, ours)| hpa.panic.is_none() && differences(hpa, ours) == found.differ)
                .collect())
        })?;
        let again = self.disagreements(&[small])?;
        again.into_iter().next().context("a small case that differed does so again")
    }
}

impl Disagreement {
    /// The case as a line of the format, with the HPA's outcome as what is expected.
    fn line(&self) -> Value {
        let mut line = self.case.clone();
        line["expect"] = json!(self.hpa);
        line["got"] = json!(self.ours);
        line
    }
}
