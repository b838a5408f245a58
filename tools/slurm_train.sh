#!/usr/bin/env bash
# Pretraining by Slurm on one node, as published: in the background, output in
# WORK_DIR/nohup_output.out.
#   [GPUS=4] [CPUS_PER_TASK=16] [SRUN_ARGS='-t 7:59:49'] \
#     tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of openselfsup train]
# It runs: srun ... tools/train.py CONFIG --work_dir WORK_DIR --seed 0 --launcher slurm.
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,6p' "$0"; exit 2; fi
partition=$1; job=$2; config=$3; work_dir=$4; shift 4
mkdir -p "$work_dir"
export JOB_NAME=$job GPUS_PER_NODE=${GPUS:-4} CPUS_PER_TASK=${CPUS_PER_TASK:-16}
export SRUN_ARGS="-N 1 ${SRUN_ARGS--t 7:59:49}"
. "$(dirname "$0")/srun.sh"
trap '' HUP  # as nohup does
(run_by_slurm "$partition" "${GPUS:-4}" -W ignore "$(dirname "$0")/train.py" "$config" \
  --work_dir "$work_dir" --seed 0 --launcher slurm "$@") &> "$work_dir/nohup_output.out" &
