#!/usr/bin/env bash
# Measures a GPU: training steps in bfloat16 here and in PyTorch (AMP, channels-last, eager and
# compiled), and the seconds of a ResNet-20 for an epoch of CIFAR-10. If a part fails, the others are
# still measured.
#
# usage: bash benchmarks/gpu.sh OUT [CIFAR10_DATA_DIR]      in the root of the checkout
set -uo pipefail

out=$1
mkdir -p "$out"

time_steps() { # NET BATCH_SIZE...
    for size in "${@:2}"; do
        python scripts/benchmark.py "$1" --batch-size "$size" --precision bfloat16 --torch-compile \
            --repetitions 5 --output "$out/$1-$size.json" 2>"$out/$1-$size.log" ||
            tail -n 1 "$out/$1-$size.log"
    done
}

time_steps resnet50 128 256 512
time_steps densenet121 128 256
for net in resnet20 resnet110 densenet_bc_100_12; do
    time_steps "$net" 128 1024
done

if [ $# -gt 1 ]; then
    # The last line has images_per_second; an epoch has 50,000 images. The second session finds
    # compiled programs in the cache.
    for session in first second; do
        python scripts/train.py experiments/he2015/resnet56_cifar10.py --model.depth 20 \
            --precision bfloat16 --epochs 10 --log-every 391 --evaluate-every 3910 \
            --data.data-dir "$2" --run-dir "$out/resnet20-$session" | tail -n 6
    done
fi
