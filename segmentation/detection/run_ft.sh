#!/usr/bin/env bash
# Five independent fine-tunes of a pretrained backbone, and the mean and sd of their scores.
#   ./run_ft.sh BACKBONE OUT [GlaS|CRAG] [DATASETS_FOLDER] [further arguments of train_net.py]
# RUNS: how many, default 5. A finished run is not repeated, an interrupted one goes on.
# Others as in run.sh.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,5p' "$0"; exit 2; fi
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
