#!/usr/bin/env bash
# Accuracy of a classifier, on the GPUs of one machine, as published.
#   [PORT=29500] tools/dist_test.sh CONFIG GPUS CHECKPOINT [further arguments]
# It runs: torchrun --nproc_per_node=GPUS tools/test.py CONFIG CHECKPOINT. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,4p' "$0"; exit 2; fi
config=$1; gpus=$2; checkpoint=$3; shift 3
set -x
exec "${PYTHON:-python}" -m torch.distributed.run --nproc_per_node="$gpus" \
  --master_port="${PORT:-29500}" "$(dirname "$0")/test.py" "$config" "$checkpoint" \
  --work_dir "$(dirname "$checkpoint")/" --launcher=pytorch "$@"
