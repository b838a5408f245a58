#!/usr/bin/env bash
# Pretraining by Slurm on one node, from a copy of the tiles on its local disk, as published.
#   SRC=FOLDER [DST=/tmp/USER/NAME] [GPUS=4] [CPUS_PER_TASK=16] [SRUN_ARGS='-t 7:59:49'] \
#     tools/slurm_train_local_data.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train]
# It copies SRC to DST, runs srun ... tools/train.py CONFIG --work_dir WORK_DIR --seed 0 --launcher
# slurm --cfg-options dataset.source.root=DST, and removes the copy, also where the run fails. A DST
# that was there before is used, and stays. Start it on the node that trains.
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,8p' "$0"; exit 2; fi
if [ -z "${SRC:-}" ]; then
  echo 'error: SRC names no folder of tiles; expected SRC=FOLDER before the command' >&2; exit 2
fi
if [ ! -d "$SRC" ]; then echo "error: $SRC: no such folder" >&2; exit 2; fi
partition=$1; job=$2; config=$3; work_dir=$4; shift 4
copy=${DST:-${TMPDIR:-/tmp}/$(id -un)/$(basename "$SRC")}
mkdir -p "$work_dir"
if [ ! -d "$copy" ]; then
  trap 'rm -rf "$copy" "$copy.part"' EXIT
  echo "copying $SRC to $copy"
  mkdir -p "$(dirname "$copy")"; cp -r "$SRC" "$copy.part"; mv "$copy.part" "$copy"
fi
export JOB_NAME=$job GPUS_PER_NODE=${GPUS:-4} CPUS_PER_TASK=${CPUS_PER_TASK:-16}
export SRUN_ARGS="-N 1 ${SRUN_ARGS--t 7:59:49}"
. "$(dirname "$0")/srun.sh"
(run_by_slurm "$partition" "${GPUS:-4}" -W ignore "$(dirname "$0")/train.py" "$config" \
  --work_dir "$work_dir" --seed 0 --launcher slurm --cfg-options dataset.source.root="$copy" "$@") \
  &> "$work_dir/nohup_output.out"
