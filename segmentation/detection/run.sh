#!/usr/bin/env bash
# One fine-tune of a pretrained backbone, as published.
#   ./run.sh BACKBONE OUT [GlaS|CRAG] [DATASETS_FOLDER] [further arguments of train_net.py]
# BACKBONE: .pth (converted first) or .pkl. GPUS: how many GPUs, default all, 0 is the CPU.
# CONFIG: another YAML. RESUME=1: go on from what is in OUT. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,5p' "$0"; exit 2; fi
backbone=$(realpath "$1"); mkdir -p "$2"; out=$(realpath "$2")
dataset=${3:-GlaS}; datasets=$(realpath "${4:-datasets}"); shift $(($# < 4 ? $# : 4))
python=${PYTHON:-python}
cd "$(dirname "$0")"
gpus=${GPUS:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}
if [ "${backbone##*.}" != pkl ]; then
  "$python" convert-pretrain-to-detectron2.py "$backbone" "$out/backbone.pkl"
  backbone=$out/backbone.pkl
fi
config=${CONFIG:-configs/$dataset/${dataset}_R_18_FPN_1x_moco.yaml}
"$python" train_net.py --config-file "$config" ${RESUME:+--resume} --num-gpus "$gpus" \
  --datasets-folder "$datasets" "$@" MODEL.WEIGHTS "$backbone" OUTPUT_DIR "$out" SEED "${SEED:--1}"
