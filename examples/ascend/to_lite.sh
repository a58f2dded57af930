#!/usr/bin/env bash
# MINDIR or ONNX → MindSpore Lite. Written by MindSpore Lite's documentation; NOT RUN: its converter is no Python package.
#
#     xcit-hub export ID xcit.mindir --image-size 224 --batch 1
#     ./to_lite.sh xcit.mindir xcit 224 [ascend_oriented]
set -euo pipefail
model=$1 output=$2 size=$3 optimize=${4:-general}

case $model in
    *.mindir) format=MINDIR ;;
    *.onnx) format=ONNX ;;
    *) echo "$model is neither .mindir nor .onnx" >&2; exit 2 ;;
esac
# `general` is for CPU and phones; `ascend_oriented` compiles for Ascend and wants CANN.
converter_lite --fmk="$format" --modelFile="$model" --outputFile="$output" \
    --inputShape="image:1,3,$size,$size" --saveType=MINDIR --optimize="$optimize"
