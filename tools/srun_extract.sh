#!/usr/bin/env bash
# Features of all stages, by Slurm, as published.
#   [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#     tools/srun_extract.sh PARTITION CONFIG GPUS WORK_DIR --checkpoint CKPT [further arguments]
# It runs: srun ... tools/extract.py CONFIG --layer-ind 0,1,2,3,4 --work_dir WORK_DIR.
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,5p' "$0"; exit 2; fi
partition=$1; config=$2; gpus=$3; work_dir=$4; shift 4
. "$(dirname "$0")/srun.sh"
run_by_slurm "$partition" "$gpus" "$(dirname "$0")/extract.py" "$config" \
  --layer-ind "0,1,2,3,4" --work_dir "$work_dir" --launcher=slurm "$@"
