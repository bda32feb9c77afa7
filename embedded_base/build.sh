#!/usr/bin/env bash
# Rebuild the embedded base from the npm packages: pictures, autoencoder, text encoders, denoiser, CLIP, assembly.
# Each step resumes from its checkpoint when the script is started again. Seeds stand in the scripts.
# With a second argument `pictures` it stops after the pictures, which is what the evaluation needs. WEIGHTS and SHEETS are the
# folders of the weights and of the card's pictures; STEPS replaces the steps of every training, for a rehearsal.
set -euo pipefail
work=${1:?folder for packages, arrays and checkpoints}
until=${2:-weights}
python=${PYTHON:-.venv/bin/python}
weights=${WEIGHTS:-pairlora/bases/embedded}
sheets=${SHEETS:-docs/pictures}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
precision=$(grep -q avx512_bf16 /proc/cpuinfo 2>/dev/null && echo --bf16 || true)

train() { "$python" -m "embedded_base.train_$1" --work "$work" $precision "${@:2}" ${STEPS:+--steps "$STEPS"}; }

mkdir -p "$work"
[ -f "$work/captioned.npz" ] || {
  npm install --silent --prefix "$work" \
    @iconify-json/fluent-emoji-flat @iconify-json/fluent-emoji @iconify-json/fluent-emoji-high-contrast \
    @iconify-json/noto @iconify-json/twemoji
  "$python" -m embedded_base.pictures --node-modules "$work/node_modules" --work "$work"
}
[ "$until" = pictures ] && exit
[ -d "$work/text_encoder_2" ] || train text_encoders
[ -f "$work/autoencoder.all.pt" ] || train autoencoder --stage all
[ -f "$work/denoiser.pt" ] || train denoiser
[ -f "$work/autoencoder.decoder.pt" ] || train autoencoder --stage decoder --steps 3200
[ -f "$work/autoencoder.lines.pt" ] || train autoencoder --stage lines --steps 7000
[ -d "$work/clip" ] || train clip
"$python" -m embedded_base.assemble --work "$work" --out "$weights"
"$python" -m embedded_base.draw_sheet --base "$weights" --out "$sheets"
"$python" -m embedded_base.draw_losses --work "$work" --out "$sheets"
