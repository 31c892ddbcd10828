//! What a way through a program cannot end without.
//!
//! A pattern that asks whether a group took part (`(?(name)...)`) can have a way whose end is settled at its beginning: of
//! sshd's failed passwords one needs a colon far behind the address, and without this every combination of what stands
//! between is tried on each line before the other way is taken.

use super::program::{Program, Step};

/// Programs beyond this are left as they are: all of a program is looked through for each of its ways.
const STEPS_MAX: usize = 1_000;

/// The literal that a way cannot end without because of a group that takes part in it: the longest, if there are more, as
/// bounds in `Program::literals`. It stands in what a condition asks for then; what a way needs anyway is met on the way.
pub(super) fn of_way(program: &Program, way: u32) -> Option<(u32, u32)> {
    if program.steps.len() > STEPS_MAX {
        return None;
    }
    let settled = settled(program, way);
    let conditions = (0..).zip(&program.steps).zip(&settled);
    let asked = conditions.filter_map(|((pc, step), groups)| match (step, groups) {
        // What follows when the group took part stands up to what follows when it did not.
        (Step::If { group, no }, Some(groups)) if groups & bit(program, *group) != 0 => {
            Some(pc + 1..*no)
        }
        _ => None,
    });
    let literals = asked.flatten().filter_map(|pc: u32| {
        let Some(Step::Literal { from, to }) = program.steps.get(pc as usize) else {
            return None;
        };
        (!ends(program, way, pc, &settled)).then_some((*from, *to))
    });
    literals.max_by_key(|(from, to)| to - from)
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
