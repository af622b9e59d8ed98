# sweep DIRECTORY: deletes every container of an engine's home, then the home.
# Purpose: the watchdog of a living engine, and what clears up behind a dead one.
# Needs:   sh, xargs, rm; runs as the engine's user.
# Effects: waits until its standard input ends. DIRECTORY stays if a container could not be deleted.

# Whoever ends the engine's group may want the engine to end in order, and needs this afterwards.
trap '' HUP INT TERM
cd "$1" || exit 1
read -r _

# A runtime that says it has deleted a container may have left it, while its last thread ends.
for _ in 1 2 3; do
    ls state | xargs -r -n 1 -P 8 "$(cat runtime)" --root "$1/state" --log "$1/log" delete --force
    [ -n "$(ls state)" ] || break
done
if [ -n "$(ls state)" ]; then
    cat log >&2
    exit 1
fi

# A runtime that was killed half-way leaves groups of which it has no state.
owner=${1##*/nightcore-oci-}
rmdir /sys/fs/cgroup/"nightcore-$owner"-* /sys/fs/cgroup/*/"nightcore-$owner"-* 2>/dev/null

rm -rf --one-file-system "$1"
