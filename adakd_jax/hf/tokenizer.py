"""The tokenizer of a model folder: reading it, and writing one that every consumer can read."""

import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adakd_jax.hf.locate import TOKENIZER_FILES, locate
from adakd_jax.hf.model_files import ModelFileError, read_json_if_there
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.user_path import user_path

# Of these, the one that is broken is named.
_JSON_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
# Digits, contractions, runs of spaces, both spellings of é, emoji: where tokenizers differ.
_PROBE = "In 1984, WE'LL  see 3.14 caf\u00e9s or cafe\u0301s—\n\n\tdef f(x): return x_1  # 🙂 "


def load_tokenizer(
    path_or_repo: epath.PathLike, revision: str | None = None
) -> PreTrainedTokenizerFast:
    """Loads the tokenizer of a model folder or hub id.

    A tokenizer without a padding token pads with its end-of-text token: the vocabulary never grows.

    Args:
      path_or_repo: as for `locate`.
      revision: hub branch, tag or commit.

    Raises:
      ModelNotFoundError: the folder cannot be reached.
      ModelFileError: a file of it cannot be read.
      ValueError: it has no tokenizer, or only one that runs code from the model's repository.
    """
    folder = locate(path_or_repo, revision, files=TOKENIZER_FILES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the libraries raise what they like of a broken file
        for name in _JSON_FILES:
            read_json_if_there(folder / name)
        raise ModelFileError(f"no tokenizer can be loaded from {folder}: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"the tokenizer in {folder} is a {type(tokenizer).__name__}, which has no "
            "tokenizer.json; save it as a fast tokenizer first"
        )
    return with_padding(tokenizer)


def with_padding(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Gives a tokenizer that has no padding token its end-of-text token for it."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    folder: epath.PathLike,
    hf_config: Mapping[str, Any] | None = None,
) -> None:
    """Writes tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja;
    several templates stand in tokenizer_config.json, where all versions read them.

    `transformers` 5 names its general tokenizer class, and lists further special tokens, in a way
    that version 4 and the servers built on it cannot read. Both read the older spelling, which is
    written here. Warns if `transformers` then reads another tokenizer than the one written: for
    some model types it decides by the type alone.

    Args:
      tokenizer: what is written.
      folder: made if absent; local, or remote as in gs://bucket/folder.
      hf_config: the config.json that will stand beside it.
    """
    target = user_path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.json"
        config.write_text(json.dumps(dict(hf_config or {})), encoding="utf-8")
        _save_locally(tokenizer, Path(scratch))
        config.unlink()
        for file in sorted(Path(scratch).iterdir()):
            (target / file.name).write_bytes(file.read_bytes())


def _save_locally(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    tokenizer.save_pretrained(folder, save_jinja_files=isinstance(tokenizer.chat_template, str))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    # How the tokenizer was loaded, not what it is.
    for key in ("is_local", "local_files_only", "backend"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    reread = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ids = [reader.backend_tokenizer.encode(_PROBE).ids for reader in (tokenizer, reread)]
    if ids[0] != ids[1]:
        warnings.warn(
            f"AutoTokenizer reads the saved tokenizer as a {type(reread).__name__}, which cuts "
            "text differently: this model's type goes with another tokenizer. Load it with "
            "PreTrainedTokenizerFast instead.",
            stacklevel=3,
        )


def check_same_tokens(model: Pretrained, teacher: Pretrained) -> None:
    """Raises ValueError, with three examples, where both models have a token and not the same one.

    A vocabulary may be longer than the other; a model without a tokenizer is not checked.
    """
    if model.tokenizer is None or teacher.tokenizer is None:
        return
    own, other = (
        {number: token for token, number in each.get_vocab().items()}
        for each in (model.tokenizer, teacher.tokenizer)
    )
    differing = [
        number for number in sorted(own.keys() & other.keys()) if own[number] != other[number]
    ]
    if differing:
        shown = "; ".join(f"{n} is {own[n]!r} and {other[n]!r}" for n in differing[:3])
        raise ValueError(
            f"{model.source.name} and {teacher.source.name} have different vocabularies, so their "
            f"distributions cannot be compared: {len(differing):,} token ids differ, e.g. {shown}. "
            "Valid: models with one tokenizer"
        )
