//! The conditions of the quota.

use crate::{
    draft::{Context, Draft},
    status::{enforced, out_of_memory},
};

/// Adds what there is to say of the quota.
pub(crate) fn of_quota(context: &Context<'_>, draft: &mut Draft) {
    let answer = enforced::answer(context, &draft.resizing);
    let (killed, until) = out_of_memory::condition(context).unzip();
    draft.status.conditions.extend(answer.condition.into_iter().chain(killed));
    draft.look_again(answer.look_again);
    draft.look_again(until);
}
