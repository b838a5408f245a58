#!/usr/bin/env bash
# Five independent fine-tunes of a pretrained backbone, and the mean and sd of their scores.
#   ./run_ft.sh BACKBONE OUT [GlaS|CRAG] [DATASETS_FOLDER] [further arguments of train_net.py]
#   ./run_ft.sh       as published: CA2CL.pkl of converted_weights/ on GlaS and CRAG, two GPUs (GPUS),
#                     to work_dirs/GlaS_R_18_FPN_1x_moco and work_dirs/CRAG_R_18_FPN_1x_moco
# RUNS: how many, default 5. A finished run is not repeated, an interrupted one goes on.
# Others as in run.sh.
set -euo pipefail
if [ $# -eq 0 ]; then
  for weights in converted_weights/CA2CL.pkl work_dirs/converted_weights/CA2CL.pkl; do
    if [ ! -f $weights ]; then continue; fi
    export GPUS=${GPUS:-2}
    for dataset in GlaS CRAG; do
      bash "$0" $weights "work_dirs/${dataset}_R_18_FPN_1x_moco" $dataset \
        "${DETECTRON2_DATASETS:-datasets}" SOLVER.IMS_PER_BATCH $((GPUS > 0 ? GPUS * 2 : 2))
    done
    exit
  done
  echo 'error: run_ft.sh: there is no converted_weights/CA2CL.pkl here; expected' \
    'convert-pretrain-to-detectron2.py CHECKPOINT converted_weights/CA2CL.pkl before it, or' \
    'run_ft.sh BACKBONE OUT' >&2
  exit 2
fi
if [ $# -lt 2 ]; then sed -n '2,7p' "$0"; exit 2; fi
here=$(cd "$(dirname "$0")" && pwd); backbone=$1; out=$2; shift 2
runs=(); finished=(); python=${PYTHON:-python}
for seed in $(seq 1 "${RUNS:-5}"); do
  runs+=("$out/$seed")
  if [ -f "$out/$seed/results.json" ]; then finished+=("$out/$seed"); fi
done
if [ ${#finished[@]} -gt 0 ]; then  # of this backbone, or refused before more is trained
  "$python" "$here/summarize.py" "${finished[@]}" --weights "$backbone" > /dev/null
fi
for seed in $(seq 1 "${RUNS:-5}"); do
  if [ ! -f "$out/$seed/results.json" ]; then
    RESUME=1 SEED=$seed "$here/run.sh" "$backbone" "$out/$seed" "$@"
  fi
done
"$python" "$here/summarize.py" "${runs[@]}" --weights "$backbone" --out "$out/summary.json"
