#!/bin/sh
# Runs one task, followed live, and exits with its code: `hivemind run`, from this checkout or from wherever it is installed.
#   deploy/run_task.sh SCRIPT.py ARGS…      deploy/run_task.sh -- COMMAND…
set -eu
hivemind=$(dirname "$(readlink -f "$0")")/../.venv/bin/hivemind
[ -x "$hivemind" ] || hivemind=hivemind
exec "$hivemind" run "$@"
