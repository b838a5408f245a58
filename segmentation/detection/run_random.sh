#!/usr/bin/env bash
# One detector from random weights, as published.
#   ./run_random.sh CONFIG.yaml NUM_GPUS OUT [further arguments of train_net.py]
# It runs: train_net.py --config-file CONFIG.yaml --num-gpus NUM_GPUS MODEL.WEIGHTS "", two images
# a GPU, of datasets/ or $DETECTRON2_DATASETS. PYTHON: the interpreter.
set -euo pipefail
if [ $# -lt 3 ] || ! [[ $2 =~ ^[0-9]+$ ]]; then sed -n '2,5p' "$0"; exit 2; fi
config=$1; gpus=$2; out=$3; shift 3
batch=(SOLVER.IMS_PER_BATCH $((gpus > 0 ? gpus * 2 : 2)))
if [[ " $* " == *' SOLVER.IMS_PER_BATCH '* ]]; then batch=(); fi
exec "${PYTHON:-python}" "$(dirname "$0")/train_net.py" --config-file "$config" \
  --num-gpus "$gpus" --datasets-folder "${DETECTRON2_DATASETS:-datasets}" "$@" \
  "${batch[@]}" MODEL.WEIGHTS "" OUTPUT_DIR "$out"
