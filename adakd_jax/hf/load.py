"""Loading a model: from a hub id or a local folder of safetensors, or from a GGUF file."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from transformers import PreTrainedTokenizerFast

from adakd_jax.hf.locate import MODEL_FILES, TOKENIZER_FILES, locate
from adakd_jax.hf.pretrained import SPECIAL_IDS, ModelSource, Pretrained
from adakd_jax.hf.safetensors_file import open_safetensors
from adakd_jax.hf.tokenizer import load_tokenizer
from adakd_jax.hf.weights import Place, params_from_tensors
from adakd_jax.hf.write import SAFETENSORS_INDEX
from adakd_jax.models.config import Remat
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.models.quantized import Quantization

MODEL_CARD = "README.md"
Rules = Callable[[str], PartitionSpec] | Mapping[str, PartitionSpec]


def load_pretrained(
    path_or_repo: epath.PathLike,
    *,
    dtype: DTypeLike = jnp.float32,
    compute_dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
    rules: Rules | None = None,
    remat: Remat = "none",
    quantization: Quantization | None = None,
    revision: str | None = None,
    weights: bool = True,
) -> Pretrained:
    """Load a model with its tokenizer: nothing is unpickled, no code of the repository is run.

    Weights go from their files straight to their shards: no tensor is in host memory whole but for
    what this process keeps of it.

    Args:
        path_or_repo: a folder with `config.json` and safetensors, a `.gguf` file, or anything else
            `locate` finds.
        dtype: of the parameters, whatever the file holds.
        compute_dtype: of activations and matrix products; the parameters' if None.
        mesh: where to place the parameters; None for the default device.
        rules: partition of each parameter over `mesh`, as a function of its dotted path or a
            mapping (a path that is not in it is replicated); None replicates all.
        remat: what the backward pass recomputes: "none", "dots" (all but matrix products) or
            "full" (whole layers).
        quantization: of the kernels, for a model that is not trained; None: none.
        revision: hub branch, tag or commit.
        weights: False reads none: `params` are shapes in `dtype`, without a place.

    Raises:
        ModelNotFoundError: the model cannot be reached.
        ValueError: its configuration is not supported, before any weight is read.
        WeightsError: missing, extra and mis-shaped tensors, all together.
    """
    path = locate(path_or_repo, revision, files=(*MODEL_FILES, MODEL_CARD))
    place = None if mesh is None else _placement(mesh, rules)
    options: dict[str, Any] = {
        "dtype": dtype,
        "compute_dtype": compute_dtype,
        "place": place,
        "remat": remat,
        "quantization": quantization,
        "weights": weights,
    }
    if path.suffix == ".gguf":
        # Only who has a GGUF file needs that library.
        from adakd_jax.hf.gguf import load_gguf

        return load_gguf(path, **options)
    return _load_folder(path, name=str(path_or_repo), **options)


def _load_folder(
    folder: Path,
    *,
    name: str,
    dtype: DTypeLike,
    compute_dtype: DTypeLike | None,
    remat: Remat,
    weights: bool,
    **placing: Any,
) -> Pretrained:
    hf_config = _read_json(folder / "config.json")
    if hf_config is None:
        raise ValueError(f"{folder} has no config.json; files there: {_listing(folder)}")
    computed_in = jnp.dtype(dtype if compute_dtype is None else compute_dtype).name
    config = dataclasses.replace(decoder_config(hf_config), compute_dtype=computed_in, remat=remat)
    graphdef, params = abstract_decoder(config, dtype)
    if weights:
        with open_safetensors(safetensors_files(folder)) as files:
            params = params_from_tensors(
                config, files.shapes, files.read, dtype=dtype, source=name, **placing
            )
    has_tokenizer = any(
        (folder / file).exists() for file in ("tokenizer.json", "tokenizer_config.json")
    )
    tokenizer = load_tokenizer(folder) if has_tokenizer else None
    source = ModelSource(
        name=name,
        hf_config=hf_config,
        licence=_licence(folder / MODEL_CARD),
        generation_config=_generation_config(folder, hf_config),
        chat_template=_chat_template(tokenizer),
    )
    return Pretrained(config, graphdef, params, tokenizer, source)


def read_tokenizer(
    path_or_repo: epath.PathLike, revision: str | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer of anything `locate` finds, a GGUF file included, without its weights.

    Raises:
      ModelNotFoundError, ValueError: as `load_tokenizer`.
    """
    path = locate(path_or_repo, revision, files=TOKENIZER_FILES)
    if path.suffix != ".gguf":
        return load_tokenizer(path)
    # Only who has a GGUF file needs that library.
    from adakd_jax.hf.gguf import open_gguf
    from adakd_jax.hf.gguf_tokenizer import gguf_tokenizer

    with open_gguf(path) as file:
        return gguf_tokenizer(file.metadata)


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files of a folder: those of the index if there is one, else the only one.

    Raises:
        ValueError: there are none, or some of the index are not there.
    """
    index = _read_json(folder / SAFETENSORS_INDEX)
    if index is not None:
        names = sorted(set(index["weight_map"].values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise ValueError(
                f"{folder}: {SAFETENSORS_INDEX} names files that are not there: {', '.join(absent)}"
            )
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt")):
        raise ValueError(
            f"{folder} has pickled weights only ({_listing(folder)}), which are never read; "
            "valid: safetensors (save the model with transformers once) or a .gguf file"
        )
    raise ValueError(
        f"{folder} has no model.safetensors and no {SAFETENSORS_INDEX}; "
        f"files there: {_listing(folder)}"
    )


def _placement(mesh: Mesh, rules: Rules | None) -> Place:
    def place(path: str) -> NamedSharding:
        if rules is None:
            spec = PartitionSpec()
        elif isinstance(rules, Mapping):
            spec = rules.get(path, PartitionSpec())
        else:
            spec = rules(path)
        return NamedSharding(mesh, spec)

    return place


def _chat_template(tokenizer: PreTrainedTokenizerFast | None) -> str | None:
    """The template, the one called `default` where there are several."""
    template = None if tokenizer is None else tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def _generation_config(folder: Path, hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """What generation_config.json says; without that file, the special tokens of config.json, as in
    transformers.
    """
    written = _read_json(folder / "generation_config.json")
    if written is not None:
        return written
    return {name: hf_config[name] for name in SPECIAL_IDS if hf_config.get(name) is not None}


def _licence(card: Path) -> str | None:
    """The `license:` of a model card's front matter."""
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL)
    found = re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _listing(folder: Path) -> str:
    return ", ".join(sorted(file.name for file in folder.iterdir())) or "none"
