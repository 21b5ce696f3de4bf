#!/usr/bin/env bash
# Makes the shipped models from the data sets: trains (going on where it was stopped), exports,
# evaluates what was exported, and writes the figures into its contract. Run from the project's root
# with the environment active; DATA holds nyuv2/ and dfd_dslr/.
set -euo pipefail
data=${DATA:-../shared/data}

# train NAME: its weights in runs/NAME, and the log of its training.
train() {
    ddfd-train --config "training/configs/$1.yaml" --data-root "$data"
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

# The earlier stages' logs are apart; the lens that the model is told about the DSLR set is measured from its training pairs.
ddfd-train --config training/configs/ddfd-lite-any.yaml --data-root "$data"
for part in ddfd-lite-any-start ddfd-lite-any-equal ddfd-lite-any-both ddfd-lite-any; do
    python models/merge_logs.py "runs/$part" >"models/$part.log.csv"
done
pairs=$data/dfd_dslr
ddfd-prepare --defocused "$pairs/dfd_dataset_indoor_N2_8/rgb/train" --sharp "$pairs/dfd_dataset_indoor_N8/rgb/train" \
    --depth "$pairs/dfd_dataset_indoor_N2_8/depth/train" --pair order --lens dslr --no-denoise --out runs/dslr_train
ddfd-calibrate runs/dslr_train --frames 40 --focal 35 --f-number 2.8 --pitch 36.6 --sharp-ratio 0.35 --out runs/dslr_lens
# Softened as the node does with camera_sigma_0_px 0.39 (docs/any-lens.md); and, to compare, as the pictures are.
ship ddfd-lite-any dfd_dslr --lens runs/dslr_lens/lens.yaml --soften 0.58
ddfd-evaluate --onnx models/ddfd-lite-any.onnx --runtime onnxruntime --data dfd_dslr --root "$data/dfd_dslr" --split test \
    --no-edges --lens runs/dslr_lens/lens.yaml --json models/ddfd-lite-any.dfd_dslr-unsoftened.json
for focus in 2m 4m; do
    ddfd-evaluate --onnx models/ddfd-lite-any.onnx --runtime onnxruntime --data nyuv2 --root "$data/nyuv2" --split test \
        --lens "nyu-$focus" --limit 50 --no-edges --json "models/ddfd-lite-any.nyuv2-$focus.json"
done
# All test scenes through five lenses; what else is asked about lenses, on some of them.
ddfd-evaluate-lenses models/ddfd-lite-any.onnx --data nyuv2 --root "$data/nyuv2" --split test --limit 323 --part lenses \
    --runtime onnxruntime --json models/ddfd-lite-any.lenses.json
ddfd-evaluate-lenses models/ddfd-lite-any.onnx --data nyuv2 --root "$data/nyuv2" --split test --limit 24 \
    --part swap --part wrong --part stress --runtime onnxruntime --json models/ddfd-lite-any.lens-checks.json
