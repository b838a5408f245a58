#!/usr/bin/env bash
# Accuracy of a classifier, by Slurm, as published.
#   [GPUS_PER_NODE=1] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#     tools/srun_test.sh PARTITION CONFIG GPUS CHECKPOINT [further arguments]
# It runs: srun ... tools/test.py CONFIG CHECKPOINT. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,5p' "$0"; exit 2; fi
partition=$1; config=$2; gpus=$3; checkpoint=$4; shift 4
export GPUS_PER_NODE=${GPUS_PER_NODE:-1}
. "$(dirname "$0")/srun.sh"
run_by_slurm "$partition" "$gpus" "$(dirname "$0")/test.py" "$config" "$checkpoint" \
  --work_dir "$(dirname "$checkpoint")/" --launcher=slurm "$@"
