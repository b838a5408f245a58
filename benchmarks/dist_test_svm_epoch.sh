#!/usr/bin/env bash
# Support vector machines on the features of an epoch, all labels and a few of each class.
#   DATA=FOLDER [TEST=FOLDER] benchmarks/dist_test_svm_epoch.sh CONFIG EPOCH [further arguments]
# It runs openselfsup evaluate with svm-v1 and svm-low-shot-v1 and five seeds, on
# work_dirs/CONFIG/epoch_EPOCH.pth. As published, feat5 and a number of GPUs may follow.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,5p' "$0"; exit 2; fi
. "$(dirname "$0")/evaluate.sh"
work_dir=$(work_dir_of "$1"); epoch=$2; shift 2
check_features "${1:-}"
while [[ ${1:-} =~ ^(feat5|[0-9]*)$ && $# -gt 0 ]]; do shift; done
evaluate "$work_dir/svm" "$work_dir/epoch_$epoch.pth" --protocols svm-v1 svm-low-shot-v1 \
  --labeled_train 1.0 --seeds 1 2 3 4 5 "$@"
