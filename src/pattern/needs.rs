//! What a way through a program cannot end without.
//!
//! A pattern that asks whether a group took part (`(?(name)...)`) can have a way whose end is settled at its beginning: of
//! sshd's failed passwords one needs a colon far behind the address, and without this every combination of what stands
//! between is tried on each line before the other way is taken.

use super::program::{Program, Step};

/// Programs beyond this are left as they are: what is sought takes a time that grows with the square.
const STEPS_MAX: usize = 1_000;

/// The literal that a way cannot end without because of the groups that take part in it: the longest, if there are more,
/// as bounds in `Program::literals`. What it cannot end without anyway is met on the way.
pub(super) fn of_way(program: &Program, way: u32) -> Option<(u32, u32)> {
    if program.steps.len() > STEPS_MAX {
        return None;
    }
    let settled = settled(program, way);
    if !asks(program, &settled) {
        return None;
    }
    let anyway: Vec<Option<u64>> = settled.iter().map(|at| at.map(|_| 0)).collect();
    let anyway = musts(program, way, &anyway);
    let musts = musts(program, way, &settled).into_iter();
    musts
        .filter(|literal| !anyway.contains(literal))
        .max_by_key(|(from, to)| to - from)
}

/// Is there a condition on the way that is settled before?
fn asks(program: &Program, settled: &[Option<u64>]) -> bool {
    let mut steps = program.steps.iter().zip(settled);
    steps.any(|(step, groups)| match (step, groups) {
        (Step::If { group, .. }, Some(groups)) => groups & bit(program, *group) != 0,
        _ => false,
    })
}

/// The literals that every way from `start` to an end passes.
fn musts(program: &Program, start: u32, settled: &[Option<u64>]) -> Vec<(u32, u32)> {
    let literals = program.steps.iter().enumerate().filter_map(|(pc, step)| {
        let Step::Literal { from, to } = step else {
            return None;
        };
        settled.get(pc)?.as_ref()?;
        Some((u32::try_from(pc).ok()?, (*from, *to)))
    });
    literals
        .filter(|(pc, _)| !ends(program, start, *pc, settled))
        .map(|(_, literal)| literal)
        .collect()
}

/// Of each step, the groups that have taken part whenever it is reached from `start`, one bit for each that is asked
/// about; `None`: it is not reached.
fn settled(program: &Program, start: u32) -> Vec<Option<u64>> {
    let mut settled: Vec<Option<u64>> = vec![None; program.steps.len()];
    let mut open = vec![(start, 0)];
    while let Some((pc, groups)) = open.pop() {
        let (Some(known), Some(step)) =
            (settled.get_mut(pc as usize), program.steps.get(pc as usize))
        else {
            continue;
        };
        let all = known.map_or(groups, |known| known & groups);
        if *known == Some(all) {
            continue;
        }
        *known = Some(all);
        let after = match *step {
            Step::Save(slot) if slot % 2 == 1 => all | bit(program, slot / 2),
            Step::Save(slot) | Step::Unset(slot) => all & !bit(program, slot / 2),
            Step::Literal { .. }
            | Step::Set(_)
            | Step::Run { .. }
            | Step::At(_)
            | Step::Split { .. }
            | Step::Jump(_)
            | Step::Turn(_)
            | Step::Turned { .. }
            | Step::Back { .. }
            | Step::If { .. }
            | Step::Look { .. }
            | Step::Atomic { .. }
            | Step::Accept => all,
        };
        open.extend(next(program, pc, *step, all).map(|pc| (pc, after)));
    }
    settled
}

/// Whether an end can be reached without passing `avoided`.
fn ends(program: &Program, start: u32, avoided: u32, settled: &[Option<u64>]) -> bool {
    let mut seen = vec![false; program.steps.len()];
    let mut open = vec![start];
    while let Some(pc) = open.pop() {
        let (Some(seen), Some(step)) = (seen.get_mut(pc as usize), program.steps.get(pc as usize))
        else {
            return true;
        };
        if pc == avoided || std::mem::replace(seen, true) {
            continue;
        }
        if matches!(step, Step::Accept) {
            return true;
        }
        let groups = settled.get(pc as usize).copied().flatten();
        open.extend(next(program, pc, *step, groups.unwrap_or(0)));
    }
    false
}

/// The steps that can follow, when at least `groups` have taken part. What a look or an atomic group holds is passed over:
/// rather too few literals than one too many.
fn next(program: &Program, pc: u32, step: Step, groups: u64) -> impl Iterator<Item = u32> {
    let (one, other) = match step {
        Step::Split { first, second, .. } => (first.0, Some(second.0)),
        Step::Jump(to) | Step::Look { next: to, .. } | Step::Atomic { next: to } => (to, None),
        Step::Turned { out, .. } => (pc + 1, Some(out)),
        Step::If { group, no } => {
            let took_part = groups & bit(program, group) != 0;
            (pc + 1, (!took_part).then_some(no))
        }
        Step::Accept => return None.into_iter().chain(None),
        Step::Literal { .. }
        | Step::Set(_)
        | Step::Run { .. }
        | Step::At(_)
        | Step::Save(_)
        | Step::Unset(_)
        | Step::Turn(_)
        | Step::Back { .. } => (pc + 1, None),
    };
    Some(one).into_iter().chain(other)
}

/// Of a group that is asked about; 0: it is not, or there are too many.
fn bit(program: &Program, group: u32) -> u64 {
    let asked = program
        .referenced
        .iter()
        .position(|(known, _)| *known == group);
    let bit = asked.and_then(|at| u32::try_from(at).ok());
    bit.and_then(|bit| 1u64.checked_shl(bit)).unwrap_or(0)
}
