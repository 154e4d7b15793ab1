#!/bin/sh
# Tells enforcer whose job this is, or that it is over. The hooks of all runners call it:
#
#   job.sh begin CI    a job begins, or goes on: whoever was here before is over
#   job.sh end CI      the job is over
#
# It fails no job: one of which nothing could be told gets what the policy gives to everybody in
# its scope. With ENFORCER_HOOK_REQUIRED=1 in the runner's own environment, or with the file
# /etc/enforcer/hook-required, which no job can take away, it does. A job that would be taken for
# the one before it does not begin in any case.

# Whatever the job has in its environment, program and configuration are those of the host.
PATH="/usr/sbin:/usr/bin:/sbin:/bin${PATH:+:$PATH}"
unset ENFORCER_CONFIG

say() {
    printf 'enforcer: %s\n' "$*" >&2
}

give_up() {
    say "$1"
    say "so nobody knows whose job this is, and it gets only what the policy gives to all jobs of this runner"
    say "what to do: $2"
    [ "${ENFORCER_HOOK_REQUIRED:-0}" = 1 ] || [ -e /etc/enforcer/hook-required ] || exit 0
    exit 1
}

verb=${1:-} ci=${2:-auto}
command -v enforcer >/dev/null 2>&1 ||
    give_up "the program enforcer is not installed" "install it, or take this hook out of the runner's configuration"

case $verb in
begin)
    said=$(enforcer job start --anew --ci "$ci" 2>&1)
    code=$?
    printf '%s\n' "$said" >&2
    [ "$code" != 0 ] || exit 0
    if [ "$code" != 3 ] && ! enforcer job end >&2; then
        say "this job would be taken for the one before it, and does not begin"
        say "what to do: see the messages above; 'enforcer status' (as root) says whether the service is whole"
        exit 1
    fi
    give_up "it could not be told whose job this is" \
        "see the message above; 'enforcer status' and 'enforcer scope ls' (as root) say whether this runner is in a scope"
    ;;
end)
    enforcer job end >&2 || give_up "the end of the job could not be told" \
        "see the message above; the hook that begins the next job ends this one, too"
    exit 0
    ;;
*)
    say "job.sh begin|end [github|gitlab|buildkite|forgejo|azure|auto]"
    exit 2
    ;;
esac
