#!/usr/bin/env bash
# Pretraining in one process, as published.
#   tools/single_train.sh CONFIG [arguments of openselfsup train]
# It runs: tools/train.py CONFIG --work_dir WORK, where WORK is CONFIG without suffix, and with
# work_dirs for configs. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 1 ]; then sed -n '2,5p' "$0"; exit 2; fi
config=$1; shift
work_dir=$(sed 's/configs/work_dirs/g' <<< "${config%.*}")/
set -x
exec "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --work_dir "$work_dir" "$@"
