#!/usr/bin/env bash
# ONNX → .om for Ascend by CANN's ATC. Written by CANN's documentation; NOT RUN: it needs CANN's toolkit.
#
#     xcit-hub export ID xcit.onnx --opset 17 --image-size 224
#     ./to_om.sh xcit.onnx xcit 224 Ascend310P3
set -euo pipefail
model=$1 output=$2 size=$3 soc=$4

# --framework=5 is ONNX. One batch size after another is compiled in; -1 stands for the batch. Float32 is kept where the
# operators allow it: the softmax of cross-covariance attention and its norms lose digits in float16.
atc --model="$model" --framework=5 --output="$output" --soc_version="$soc" \
    --input_format=NCHW --input_shape="image:-1,3,$size,$size" --dynamic_batch_size="1,4,16" \
    --precision_mode_v2=origin --log=error
