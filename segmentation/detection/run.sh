#!/usr/bin/env bash
# One fine-tune of a pretrained backbone, as published.
#   ./run.sh BACKBONE OUT [GlaS|CRAG] [DATASETS_FOLDER] [further arguments of train_net.py]
# BACKBONE: .pth or .pkl. GPUS: how many GPUs, default all, 0 is the CPU.
# CONFIG: another YAML. RESUME=1: go on from what is in OUT. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,5p' "$0"; exit 2; fi
backbone=$1; out=$2; dataset=${3:-GlaS}; datasets=${4:-datasets}; shift $(($# < 4 ? $# : 4))
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}
config=${CONFIG:-$here/configs/$dataset/${dataset}_R_18_FPN_1x_moco.yaml}
# Nothing is written here: train_net.py first sees whose folder OUT is.
"$python" "$here/train_net.py" --config-file "$config" ${RESUME:+--resume} --num-gpus "$gpus" \
  --datasets-folder "$datasets" "$@" MODEL.WEIGHTS "$backbone" OUTPUT_DIR "$out" SEED "${SEED:--1}"
