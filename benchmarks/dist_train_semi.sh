#!/usr/bin/env bash
# Fine-tuning on 1 % or 10 % of the labels, the head at a learning rate of its own.
#   DATA=FOLDER [TEST=FOLDER] benchmarks/dist_train_semi.sh CONFIG PRETRAIN [further arguments]
# It runs openselfsup evaluate with semi-v1: on 10 % where CONFIG has 10percent in its path, else on
# 1 %; the head learns 1, 10 and 100 times as fast, the best on validation tiles is taken. That is
# all that is taken from CONFIG; --lr and --ft_epoch may follow. PRETRAIN is a checkpoint, or random.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,6p' "$0"; exit 2; fi
. "$(dirname "$0")/evaluate.sh"
out=$(work_dir_of "$1")/$(basename "$2"); config=$1; checkpoint=$2; shift 2
share=0.01
case $config in *10percent*) share=0.1;; esac
evaluate "$out" "$checkpoint" --protocols semi-v1 --labeled_train "$share" --ft_epoch 20 "$@"
