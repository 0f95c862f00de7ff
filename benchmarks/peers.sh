#!/usr/bin/env bash
# Makes .venv-torch and .venv-tunix, which hold the libraries that the benchmarks compare with.
# Needs Python ≥ 3.12 and a package registry; about 3 GB on disk with a CPU build of torch.
# Two environments, because Tunix allows only an older safetensors, hence an older transformers.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh

install() {
  echo "Installing $2 and what it needs into $1 …"
  install_into "$@"
}

# One resolution with torch in it, so that no requirement of the others brings another torch. Where
# the index offers no CPU build, this one downloads gigabytes of CUDA libraries: Python 3.11 first,
# as most indexes have one for it.
PYTHON="${PYTHON:-$(python_of 3.11 || chosen_python)}" install .venv-torch "torch==2.13.0" "transformers==5.24.0" "trl==1.16.0" "accelerate==1.15.0" "datasets==5.2.0"
# jax is no requirement of google-tunix: users choose the accelerator. The same release as ours.
install .venv-tunix "google-tunix==0.1.7" "jax[cpu]==0.12.0.1" "flax==0.12.12" "optax==0.2.8" \
  "orbax-checkpoint==0.12.8" "qwix==0.1.8" "google-metrax==0.2.4" "transformers==5.12.1"
