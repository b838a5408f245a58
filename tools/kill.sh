#!/usr/bin/env bash
# Stop a run: it saves latest.pth and ends, and --resume goes on with it.
#   tools/kill.sh WORK_DIR
# The published script ends every train.py of the machine; this one ends the process that writes
# into WORK_DIR. PYTHON: the interpreter.
set -euo pipefail
if [ $# -ne 1 ]; then sed -n '2,5p' "$0"; exit 2; fi
"${PYTHON:-python}" -c 'import sys; sys.path.insert(0, sys.argv[1])
from openselfsup.claims import stop_holder
from openselfsup.cli.run import run
run(lambda: print("asked to save and end:", stop_holder(sys.argv[2])))' \
  "$(dirname "$0")/.." "$1"
