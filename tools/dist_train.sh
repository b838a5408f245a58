#!/usr/bin/env bash
# Pretraining on the GPUs of one machine, as published.
#   [PORT=29500] tools/dist_train.sh CONFIG GPUS [arguments of openselfsup train]
# It runs: torchrun --nproc_per_node=GPUS tools/train.py CONFIG --work_dir WORK --seed 0, where WORK
# is CONFIG without suffix, and with work_dirs for configs. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,5p' "$0"; exit 2; fi
config=$1; gpus=$2; shift 2
work_dir=$(sed 's/configs/work_dirs/g' <<< "${config%.*}")/
set -x
exec "${PYTHON:-python}" -m torch.distributed.run --nproc_per_node="$gpus" \
  --master_port="${PORT:-29500}" "$(dirname "$0")/train.py" "$config" --work_dir "$work_dir" \
  --seed 0 --launcher pytorch "$@"
