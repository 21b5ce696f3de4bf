#!/usr/bin/env bash
# Makes the shipped models from the data sets: trains (going on where it was stopped), exports,
# evaluates what was exported, and writes the figures into its contract. Run from the project's root
# with the environment active; DATA holds nyuv2/ and dfd_dslr/ (and is what the recipes expect).
set -euo pipefail
data=${DATA:-../shared/data}

# train NAME: its weights in runs/NAME, and the log of its training.
train() {
    ddfd-train --config "training/configs/$1.yaml"
    python models/merge_logs.py "runs/$1" >"models/$1.log.csv"
}

# ship NAME SET [OPTION ...]: the model with its weights, and its report on SET's test split.
ship() {
    local weights=runs/$1/$1.pt model=models/$1.onnx report=models/$1.$2.json
    ddfd-export "$weights" "$model"
    ddfd-evaluate --onnx "$model" --runtime onnxruntime --data "$2" --root "$data/$2" --split test \
        --baseline --json "$report" "${@:3}"
    ddfd-export "$weights" "$model" --metrics "$report"
    cp "$weights" models/
}

train ddfd-lite-nyu-8m
ship ddfd-lite-nyu-8m nyuv2
for part in ddfd-lite-dslr-sim ddfd-lite-dslr-small ddfd-lite-dslr-large \
    ddfd-lite-dslr-long ddfd-lite-dslr; do
    train "$part"
done
ship ddfd-lite-dslr dfd_dslr
train ddfd-lite-any
ship ddfd-lite-any nyuv2 --lens nyu-2m
ddfd-evaluate-lenses models/ddfd-lite-any.onnx --data nyuv2 --root "$data/nyuv2" --split test --limit 50 \
    --runtime onnxruntime --json models/ddfd-lite-any.lenses.json
