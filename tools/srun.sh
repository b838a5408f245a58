# Read by the srun_*.sh: how each of them asks Slurm for its processes, one for a GPU.
run_by_slurm() {
  local partition=$1 gpus=$2 per_node=${GPUS_PER_NODE:-8}; shift 2
  if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
  set -x
  # SRUN_ARGS holds several words.
  # shellcheck disable=SC2086
  exec srun -p "$partition" --job-name="${JOB_NAME:-openselfsup}" --gres=gpu:"$per_node" \
    --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} "${PYTHON:-python}" -u "$@"
}
