#!/bin/sh
# GitHub Actions, a job is over: in the .env of the runner
#   ACTIONS_RUNNER_HOOK_JOB_COMPLETED=/usr/lib/enforcer/hooks/github-completed.sh
exec "${0%/*}/job.sh" end github
