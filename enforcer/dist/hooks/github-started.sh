#!/bin/sh
# GitHub Actions, a job begins: in the .env of the runner
#   ACTIONS_RUNNER_HOOK_JOB_STARTED=/usr/lib/enforcer/hooks/github-started.sh
exec "${0%/*}/job.sh" begin github
