#!/usr/bin/env bash
# Support vector machines on the features of any weights, all labels and a few of each class.
#   DATA=FOLDER [TEST=FOLDER] benchmarks/dist_test_svm_pretrain.sh CONFIG PRETRAIN [further arguments]
# It runs openselfsup evaluate with svm-v1 and svm-low-shot-v1 and five seeds; PRETRAIN is a
# checkpoint, or random. As published, feat5 and a number of GPUs may follow.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,5p' "$0"; exit 2; fi
. "$(dirname "$0")/evaluate.sh"
out=$(work_dir_of "$1")/$(basename "$2"); checkpoint=$2; shift 2
check_features "${1:-}"
while [[ ${1:-} =~ ^(feat5|[0-9]*)$ && $# -gt 0 ]]; do shift; done
evaluate "$out/svm" "$checkpoint" --protocols svm-v1 svm-low-shot-v1 --labeled_train 1.0 \
  --seeds 1 2 3 4 5 "$@"
