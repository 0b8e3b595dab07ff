#!/usr/bin/env bash
# The whole recipe of the embedded weights, from an empty folder: run it again to go on where it was stopped.
#   scripts/train_toon.sh [OUT=runs/toon] [STEPS]
# Works in slices of MINUTES (9), each ending with a checkpoint, and stops by itself at the last step. SLICES=1 runs a single one,
# for machines that are lent for ten minutes at a time: checkpoints/last.safetensors carries all state to the next.
# Needs torch, numpy, OpenCV, Pillow, einops, safetensors; one NVIDIA GPU, or CPU cores.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-runs/toon}
STEPS=${2:-}
MINUTES=${MINUTES:-9}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
CORES=$(nproc)
# Every core but two draws shots; the model has the rest. On two cores one worker keeps up.
WORKERS=${WORKERS:-$((CORES > 4 ? CORES - 2 : 1))}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" OMP_WAIT_POLICY=PASSIVE
for ((slice = 1; slice <= ${SLICES:-1000000}; slice++)); do
    before=$(tail -n 1 "$OUT/metrics.jsonl" 2>/dev/null || true)
    "$PYTHON" -W ignore -m timecolor.train --preset "${PRESET:-toon}" --out "$OUT" --device auto --minutes "$MINUTES" --workers "$WORKERS" \
        ${STEPS:+--steps "$STEPS"}
    # A run that is done says nothing more.
    [ "$(tail -n 1 "$OUT/metrics.jsonl")" != "$before" ] || break
done
echo "$OUT/toon.safetensors"
