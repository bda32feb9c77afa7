#!/usr/bin/env bash
# Rebuild the embedded base from the npm packages: pictures, autoencoder, text encoders, denoiser, CLIP, assembly.
# Each step resumes from its checkpoint when the script is started again. Seeds stand in the scripts.
set -euo pipefail
work=${1:?folder for packages, arrays and checkpoints}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}

mkdir -p "$work"
npm install --silent --prefix "$work" \
  @iconify-json/fluent-emoji-flat @iconify-json/fluent-emoji @iconify-json/fluent-emoji-high-contrast \
  @iconify-json/noto @iconify-json/twemoji
[ -f "$work/captioned.npz" ] || "$python" -m embedded_base.pictures --node-modules "$work/node_modules" --work "$work"
[ -d "$work/text_encoder_2" ] || "$python" -m embedded_base.train_text_encoders --work "$work"
[ -f "$work/autoencoder.all.pt" ] || "$python" -m embedded_base.train_autoencoder --work "$work" --stage all
[ -f "$work/denoiser.pt" ] || "$python" -m embedded_base.train_denoiser --work "$work"
[ -f "$work/autoencoder.decoder.pt" ] || "$python" -m embedded_base.train_autoencoder --work "$work" --stage decoder --steps 1800
[ -d "$work/clip" ] || "$python" -m embedded_base.train_clip --work "$work"
"$python" -m embedded_base.assemble --work "$work"
