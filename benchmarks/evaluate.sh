# Read by the published scripts of this folder: each is one evaluation on labelled tiles.
#   DATA=FOLDER    of a known layout; with TEST=FOLDER class folders to learn from and to test on
#   PYTHON         the interpreter
evaluate() {  # OUT CHECKPOINT [arguments of openselfsup evaluate]
  local out=$1 checkpoint=$2; shift 2
  if [ -z "${DATA:-}" ]; then
    echo 'error: DATA names no labelled tiles; expected DATA=FOLDER before the command' >&2; exit 2
  fi
  if [ "$checkpoint" = random ]; then checkpoint=; fi
  local tiles=(--dataset_path "$DATA")
  if [ -n "${TEST:-}" ]; then tiles=(--train "$DATA" --test "$TEST"); fi
  set -x
  exec ${SLURM_PARTITION:+srun -p "$SLURM_PARTITION" --gres=gpu:1 ${SRUN_ARGS:-}} \
    "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/classification/ft_le.py" "${tiles[@]}" \
    --model_path "$checkpoint" --out "$out" "$@"
}
check_features() {  # FEAT_LIST
  if [[ $1 == feat* && $1 != feat5 ]]; then
    echo "error: FEAT_LIST is '$1'; expected feat5: support vector machines see the last stage," \
      'and benchmarks/dist_train_linear.sh with a config of several heads tells of every one' >&2
    exit 2
  fi
}
work_dir_of() { sed 's/configs/work_dirs/g' <<< "${1%.*}"; }  # CONFIG
