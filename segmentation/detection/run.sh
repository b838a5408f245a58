#!/usr/bin/env bash
# One fine-tune of a pretrained backbone.
#   ./run.sh BACKBONE OUT [GlaS|CRAG] [DATASETS_FOLDER] [further arguments of train_net.py]
#   ./run.sh CONFIG.yaml BACKBONE NUM_GPUS OUT [further arguments of train_net.py]    as published
# BACKBONE: .pth or .pkl. GPUS: how many GPUs, default all, 0 is the CPU.
# CONFIG: another YAML. RESUME=1: go on from what is in OUT. PYTHON: the interpreter.
# The published form takes two images a GPU and datasets/, or $DETECTRON2_DATASETS.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,7p' "$0"; exit 2; fi
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")" && pwd)
case $1 in *.yaml|*.yml)
  config=$1; backbone=$2; gpus=${3:-8}; out=${4:-./output}; shift $(($# < 4 ? $# : 4))
  if ! [[ $gpus =~ ^[0-9]+$ ]]; then
    echo "error: run.sh: NUM_GPUS is '$gpus'; expected CONFIG.yaml BACKBONE NUM_GPUS OUT" >&2
    exit 2
  fi
  batch=(SOLVER.IMS_PER_BATCH $((gpus > 0 ? gpus * 2 : 2)))
  if [[ " $* " == *' SOLVER.IMS_PER_BATCH '* ]]; then batch=(); fi
  exec "$python" "$here/train_net.py" --config-file "$config" --num-gpus "$gpus" \
    --datasets-folder "${DETECTRON2_DATASETS:-datasets}" ${RESUME:+--resume} "$@" \
    "${batch[@]}" MODEL.WEIGHTS "$backbone" OUTPUT_DIR "$out" SEED "${SEED:--1}";;
esac
backbone=$1; out=$2; dataset=${3:-GlaS}; datasets=${4:-datasets}; shift $(($# < 4 ? $# : 4))
gpus=${GPUS:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}
config=${CONFIG:-$here/configs/$dataset/${dataset}_R_18_FPN_1x_moco.yaml}
# Nothing is written here: train_net.py first sees whose folder OUT is.
"$python" "$here/train_net.py" --config-file "$config" ${RESUME:+--resume} --num-gpus "$gpus" \
  --datasets-folder "$datasets" "$@" MODEL.WEIGHTS "$backbone" OUTPUT_DIR "$out" SEED "${SEED:--1}"
