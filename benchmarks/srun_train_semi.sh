#!/usr/bin/env bash
# dist_train_semi.sh by Slurm: the partition comes first, SRUN_ARGS holds further arguments of srun.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2p' "$0"; exit 2; fi
export SLURM_PARTITION=$1; shift
exec bash "$(dirname "$0")/dist_train_semi.sh" "$@"
