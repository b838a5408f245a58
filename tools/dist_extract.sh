#!/usr/bin/env bash
# Features of all stages, on the GPUs of one machine, as published.
#   [PORT=29500] tools/dist_extract.sh CONFIG GPUS WORK_DIR --checkpoint CKPT [further arguments]
# It runs: torchrun --nproc_per_node=GPUS tools/extract.py CONFIG --layer-ind 0,1,2,3,4 --work_dir
# WORK_DIR. --pretrained CKPT or random is the same as --checkpoint. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,5p' "$0"; exit 2; fi
config=$1; gpus=$2; work_dir=$3; shift 3
set -x
exec "${PYTHON:-python}" -m torch.distributed.run --nproc_per_node="$gpus" \
  --master_port="${PORT:-29500}" "$(dirname "$0")/extract.py" "$config" \
  --layer-ind "0,1,2,3,4" --work_dir "$work_dir" --launcher pytorch "$@"
