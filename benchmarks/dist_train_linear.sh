#!/usr/bin/env bash
# Linear classification on frozen features.
#   DATA=FOLDER [TEST=FOLDER] benchmarks/dist_train_linear.sh CONFIG PRETRAIN [further arguments]
# It runs openselfsup evaluate with linear-v1, and linear-stages-v1 where the name of CONFIG has
# multihead in it; that is all that is taken from CONFIG. PRETRAIN is a checkpoint, or random.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,5p' "$0"; exit 2; fi
. "$(dirname "$0")/evaluate.sh"
out=$(work_dir_of "$1")/$(basename "$2"); config=$1; checkpoint=$2; shift 2
protocols=(linear-v1)
case $(basename "$config") in *multihead*) protocols+=(linear-stages-v1);; esac
evaluate "$out" "$checkpoint" --protocols "${protocols[@]}" --labeled_train 1.0 "$@"
