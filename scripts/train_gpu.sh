#!/usr/bin/env bash
# Trains the embedded pair on one GPU, in slices of under ten minutes: `scripts/train_gpu.sh SLICE`. See docs/how-to/train-the-embedded-pair.md.
#
#   probe    2 min    optional: is the GPU seen, how fast is an update, does data keep up (COMPILE=--compile: 4 min)
#   first    8 min    128 pixels, from nothing; validation samples are made beside it
#   second   8 min    128 pixels, goes on
#   third    8 min    256 pixels (the rate falls to nothing here), then the decoder's correction
#   --smoke           all of it on a CPU in about two minutes, with tiny numbers
#
# Everything stays under RUN (default runs/gpu), so that slices on one machine follow each other; what must come home is
# copied to OUT (default RUN/home): at most nine files of at most 15 MiB. A slice on a fresh machine goes on from CARRY,
# a folder brought home before.
set -euo pipefail
cd "$(dirname "$0")/.."
slice=${1:?say probe, first, second, third or --smoke}
python=${PYTHON:-python3}
run=${RUN:-runs/gpu} out=${OUT:-${RUN:-runs/gpu}/home} network=${NETWORK:-nano-l} compile=${COMPILE:-}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$run" "$out"
# Training reads and writes no video: where PyAV is missing, an empty module stands for it.
if ! "$python" -c "import av" 2>/dev/null; then
    absent=$(mktemp -d)
    : >"$absent/av.py"
    export PYTHONPATH="$PYTHONPATH:$absent"
fi

train() { "$python" scripts/train_pair.py "$@"; }

resume() {
    if [[ -n ${CARRY:-} && ! -d $run/nano/checkpoint ]]; then
        mkdir -p "$run/nano"
        cp -r "$CARRY/checkpoint" "$run/nano/checkpoint"
        if [[ -f $CARRY/curve.jsonl ]]; then cp "$CARRY/curve.jsonl" "$run/nano/"; fi
    fi
}

# Fourteen minutes at 128 pixels and five and a half at 256, validation not counted.
common=(--stream --run "$run/nano" --val "$run/val" --home "$out" --network "$network" --total-minutes 19
    --steps 1000000 --learning-rate 8e-4 --warmup 300 --ema 0.9995 --ring-gb 24 --fresh 0.3 --warm-samples 512 --threads 2)

validation() { # makes 32 samples of $1 pixels in four processes
    for part in 0 1 2 3; do
        train pool --folder "$run/val" --split val --size "$1" --first-seed "$((part * 8 + 1000 * $1))" --count 8 \
            --real-share 1 >"$run/val-$1-$part.log" 2>&1 &
    done
}

case $slice in
probe)
    # shellcheck disable=SC2086
    train denoiser --stream --run "$run/probe$compile" --val "$run/none" --network "$network" --steps 1000000 \
        --batch 96 --ring-gb 8 --warm-samples 256 --log-every 20 --minutes "${compile:+2.}1" $compile
    tail -n 5 "$run/probe$compile/curve.jsonl"
    nvidia-smi --query-gpu=memory.used,utilization.gpu --format=csv
    ;;
first)
    resume
    validation 128
    # shellcheck disable=SC2086
    train denoiser "${common[@]}" --size 128 --batch 96 --minutes 7.2 $compile
    ;;
second)
    resume
    [[ -d $run/val ]] || validation 128
    # shellcheck disable=SC2086
    train denoiser "${common[@]}" --size 128 --batch 96 --minutes 7.2 $compile
    ;;
third)
    resume
    validation 256
    # shellcheck disable=SC2086
    train denoiser "${common[@]}" --size 256 --batch 24 --minutes 5.5 --home-average \
        $compile
    train autoencoder --stream --run "$run/autoencoder" --home "$out/decoder" --init shipped --size 128 --batch 64 \
        --steps 1000000 --total-minutes 1 --minutes 1.2 --ring-gb 8 --warm-samples 256 --real-workers 0
    ;;
--smoke)
    run=${RUN:-runs/smoke} out=$run/home
    tiny=(--stream --device auto --val "$run/val" --home "$out" --network "$network" --total-minutes 1 --log-every 2
        --warmup 2 --ema 0.9 --batch 2 --worlds 2 --views 5 --workers 2 --real-workers 0.5 --warm-samples 2 --ring-gb 0.05
        --val-count 1)
    train pool --folder "$run/val" --split val --size 64 --count 2 --views 5 --real-share 1
    train denoiser "${tiny[@]}" --run "$run/nano" --size 64 --steps 3
    train denoiser "${tiny[@]}" --run "$run/nano" --size 96 --steps 5
    train autoencoder "${tiny[@]}" --run "$run/autoencoder" --home "$out/decoder" --init shipped --size 128 --steps 2
    mkdir -p "$run/again/nano"
    cp -r "$out/checkpoint" "$run/again/nano/checkpoint"
    train denoiser "${tiny[@]}" --run "$run/again/nano" --size 64 --steps 6 --in-step
    train export --denoiser "$out" --autoencoder "$out/decoder" --val "$run/val" --val-count 1 --into "$run/shipped"
    find "$out" -type f -size +15900k -print -quit | grep . && { echo "a file is too large to come home" >&2; exit 1; }
    ls -l "$out"/* "$run/shipped"
    ;;
*)
    echo "unknown slice $slice: say probe, first, second, third or --smoke" >&2
    exit 2
    ;;
esac
# The background makers of validation samples are done by now; what they have to say if not is in their logs.
wait
