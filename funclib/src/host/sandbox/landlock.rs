//! Landlock: the same view once more, enforced where files are opened rather than by what is mounted,
//! and the only one where the host permits no mounts. Older kernels enforce less of it; none, nothing.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use super::root::{DEVICES, View, WRITABLE};

/// The newest set of rights that is asked for.
const NEWEST: ABI = ABI::V6;

/// Restricts this thread and all that come of it to the view; `has_root` says that nothing else is
/// mounted.
pub(super) fn restrict(view: &View, has_root: bool, network: bool) -> Result<(), RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let write = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?;
    if !network {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let rules = rules.create()?.add_rules(path_beneath_rules(DEVICES, device))?;
    let rules = if has_root {
        let rules = rules.add_rules(path_beneath_rules(["/"], read))?;
        rules.add_rules(path_beneath_rules(WRITABLE, write))?
    } else {
        let rules = rules.add_rules(path_beneath_rules(["/proc/self"], read))?;
        rules.add_rules(path_beneath_rules(&view.paths, read))?
    };
    rules.restrict_self().map(drop)
}
