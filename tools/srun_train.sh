#!/usr/bin/env bash
# Pretraining by Slurm, as published.
#   [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#     tools/srun_train.sh PARTITION CONFIG GPUS [arguments of openselfsup train]
# It runs: srun ... tools/train.py CONFIG --work_dir WORK --seed 0 --launcher slurm, where WORK is
# CONFIG without suffix, and with work_dirs for configs. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,6p' "$0"; exit 2; fi
partition=$1; config=$2; gpus=$3; shift 3
work_dir=$(sed 's/configs/work_dirs/g' <<< "${config%.*}")/
. "$(dirname "$0")/srun.sh"
run_by_slurm "$partition" "$gpus" "$(dirname "$0")/train.py" "$config" --work_dir "$work_dir" \
  --seed 0 --launcher=slurm "$@"
