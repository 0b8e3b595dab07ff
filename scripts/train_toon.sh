#!/usr/bin/env bash
# The whole recipe of the embedded weights, from an empty folder: run it again to go on where it was stopped.
#   scripts/train_toon.sh [OUT=runs] [STEPS]
# Trains the presets of PRESETS (below) one after the other, each into OUT/PRESET, B:A from the weights of A, in slices of MINUTES (9)
# that end with a checkpoint, and stops by itself at the last step. SLICES=1 runs a single slice of the first preset that is not
# done, for machines that are lent for ten minutes at a time: checkpoints/last.safetensors carries all state to the next.
# Presets named *-mixed learn from the drawings in ART (data/art) too, which are rendered first where there
# are none: pip install 'timecolor[art]', and Debian's openclipart-svg for CLIP_ART (/usr/share/openclipart/svg; heads alone without it).
# judge:A:B learns, with what it trusts, from SHOTS (480) coloured with the weights of A and B; it is not cut into slices (forty
# minutes on two cores, and goes on from what it has collected).
# matcher-large-mixed is nine minutes of an H200, or some eight hours of two cores; matcher-large-longer-mixed nine more, or thirteen hours.
# Needs torch, numpy, OpenCV, Pillow, einops, safetensors; one NVIDIA GPU, or CPU cores.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-runs}
STEPS=${2:-}
MINUTES=${MINUTES:-9}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
CORES=$(nproc)
# Every core but two draws shots; the model has the rest. On two cores one worker keeps up.
WORKERS=${WORKERS:-$((CORES > 4 ? CORES - 2 : 1))}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" OMP_WAIT_POLICY=PASSIVE
left=${SLICES:-1000000}
ART=${ART:-data/art} CLIP_ART=${CLIP_ART:-/usr/share/openclipart/svg}
for each in ${PRESETS:-matcher matcher-further:matcher matcher-attention:matcher-further matcher-mixed:matcher-attention matcher-longer-mixed:matcher-mixed matcher-deeper-mixed:matcher-longer-mixed matcher-deeper-longer-mixed:matcher-deeper-mixed matcher-large-mixed:matcher-deeper-longer-mixed matcher-large-longer-mixed:matcher-large-mixed toon judge:toon:matcher-large-longer-mixed}; do
    preset=${each%%:*} from=${each#"$preset"} data=
    if [ "$preset" = judge ]; then
        [ ! -e "$OUT/judge/judge.safetensors" ] && ((left > 0)) || continue
        from=${from#:}
        "$PYTHON" -W ignore -m timecolor.train.judging --out "$OUT/judge" --workers "$((CORES > 2 ? CORES - 1 : CORES))" \
            --toon "$(ls "$OUT/${from%%:*}"/*.safetensors)" --matcher "$(ls "$OUT/${from#*:}"/*.safetensors)" \
            ${SHOTS:+--shots "$SHOTS"} ${STEPS:+--steps "$STEPS"}
        left=$((left - 1))
        continue
    fi
    case $preset in *-mixed)
        if [ ! -d "$ART" ]; then
            rm -rf "$ART.part"
            "$PYTHON" -m timecolor.train.art --out "$ART.part" $([ ! -d "$CLIP_ART" ] || echo --clip-art "$CLIP_ART")
            mv "$ART.part" "$ART"
        fi
        data=$ART ;;
    esac
    while ((left > 0)); do
        init=
        [ -z "$from" ] || init=$(ls "$OUT/${from#:}"/*.safetensors)
        before=$(tail -n 1 "$OUT/$preset/metrics.jsonl" 2>/dev/null || true)
        "$PYTHON" -W ignore -m timecolor.train --preset "$preset" --out "$OUT/$preset" --device auto --minutes "$MINUTES" \
            --workers "$WORKERS" ${STEPS:+--steps "$STEPS"} ${init:+--init "$init"} ${data:+--data "$data"}
        # A run that is done says nothing more.
        [ "$(tail -n 1 "$OUT/$preset/metrics.jsonl")" != "$before" ] || break
        left=$((left - 1))
    done
done
ls "$OUT"/*/*.safetensors
