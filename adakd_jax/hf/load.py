"""Loading a model: from a hub id or a local folder of safetensors, or from a GGUF file."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from transformers import PreTrainedTokenizerFast

from adakd_jax.hf.config_file import CONFIG, check_not_quantised, read_config
from adakd_jax.hf.keymap import is_harmless, is_left_out
from adakd_jax.hf.licence import licence_of
from adakd_jax.hf.locate import MODEL_FILES, TOKENIZER_FILES, locate
from adakd_jax.hf.model_files import ModelFileError, read_json, read_json_if_there
from adakd_jax.hf.multimodal import TextReader, is_multimodal
from adakd_jax.hf.mxfp4 import Mxfp4Reader, is_mxfp4
from adakd_jax.hf.pretrained import SPECIAL_IDS, ModelSource, Pretrained
from adakd_jax.hf.safetensors_file import SafetensorsReader, open_safetensors
from adakd_jax.hf.tokenizer import load_tokenizer
from adakd_jax.hf.weight_files import safetensors_files
from adakd_jax.hf.weights import Place, params_from_tensors
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
        ModelFileError: one of its files cannot be read, or its configuration is not supported or
            says that it is quantised; before any weight is read.
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
    if not folder.is_dir():
        raise ModelFileError(
            f"{folder} is a file and no .gguf file; valid: the folder of a model, or a .gguf file"
        )
    hf_config = read_config(folder)
    check_not_quantised(hf_config, name)
    computed_in = jnp.dtype(dtype if compute_dtype is None else compute_dtype).name
    config = dataclasses.replace(decoder_config(hf_config), compute_dtype=computed_in, remat=remat)
    graphdef, params = abstract_decoder(config, dtype)
    if weights:
        with open_safetensors(safetensors_files(folder, hf_config)) as files:
            reader, ignored = _reader(folder, hf_config, files)
            files.check_dtypes(lambda name: is_harmless(name) or ignored(name))
            params = params_from_tensors(
                config, reader.shapes, reader.read, dtype=dtype, source=name, **placing
            )
    has_tokenizer = any(
        (folder / file).exists() for file in ("tokenizer.json", "tokenizer_config.json")
    )
    tokenizer = load_tokenizer(folder) if has_tokenizer else None
    source = ModelSource(
        name=name,
        hf_config=hf_config,
        licence=licence_of(folder / MODEL_CARD),
        generation_config=_generation_config(folder, hf_config),
        chat_template=_chat_template(tokenizer),
    )
    return Pretrained(config, graphdef, params, tokenizer, source)


def _reader(
    folder: Path, hf_config: Mapping[str, Any], files: SafetensorsReader
) -> tuple[SafetensorsReader | Mxfp4Reader | TextReader, Callable[[str], bool]]:
    """What reads the model's tensors, and which tensors of the files are not plain ones of it."""
    if is_mxfp4(hf_config):
        packed = Mxfp4Reader(files)
        return packed, packed.is_part
    if is_multimodal(read_json(folder / CONFIG)):
        text = TextReader(files)
        if text.left_out:
            left = ", ".join(text.left_out)
            warnings.warn(
                f"{folder}: its text model is read, and left out are {left}", stacklevel=3
            )
        return text, text.is_other
    if any(map(is_left_out, files.shapes)):
        warnings.warn(
            f"{folder}: left out is mtp, which guesses the tokens after the next", stacklevel=3
        )
    return files, is_left_out


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
    written = read_json_if_there(folder / "generation_config.json")
    if written is not None:
        return written
    return {name: hf_config[name] for name in SPECIAL_IDS if hf_config.get(name) is not None}
