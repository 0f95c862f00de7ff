"""Rebuilds a tokenizer from the metadata of a GGUF file, which carries no tokenizer.json."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from adakd_jax.hf.tokenizer import with_padding

# GGUF's numbers for what a token is.
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_SPACE = "▁"

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_WORDS = _LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
# Marks go with the letters that they are on.
_QWEN35_WORDS = _QWEN2_WORDS.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(
    r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"
)
# Line breaks do not go with the signs before them.
_SEED_WORDS = _QWEN2_WORDS.replace(r"\p{N}]+[\r\n]*", r"\p{N}]+")


def _cased_words(digits: str, ending: str = "") -> str:
    """A word begins at a capital letter after a small one."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    before = r"[^\r\n\p{L}\p{N}]?"
    others = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    words = f"{before}{upper}*{lower}+{ending}|{before}{upper}+{lower}*{ending}"
    return f"{words}|{digits}|{others}"


_TEKKEN_WORDS = _cased_words(r"\p{N}")
_O200K_WORDS = _cased_words(r"\p{N}{1,3}", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?")


class _Splitting(NamedTuple):
    """How a byte-level vocabulary cuts text into words, inside which it then merges bytes.

    `words` is a regular expression, None for GPT-2's own; `single_digits` cuts digits apart first.
    """

    words: str | None = None
    single_digits: bool = False
    compose_unicode: bool = False
    ignore_merges: bool = False
    add_bos: bool = False


_LLAMA3 = _Splitting(words=_LLAMA3_WORDS, ignore_merges=True, add_bos=True)
_QWEN2 = _Splitting(words=_QWEN2_WORDS, compose_unicode=True)
_GLM4 = _Splitting(words=_LLAMA3_WORDS)
_O200K = _Splitting(words=_O200K_WORDS)
_SPLITTINGS = {
    "gpt-2": _Splitting(),
    "olmo": _Splitting(),
    "smollm": _Splitting(single_digits=True),
    "refact": _Splitting(single_digits=True),
    "starcoder": _Splitting(single_digits=True),
    "command-r": _Splitting(single_digits=True),
    "exaone": _Splitting(single_digits=True),
    "dbrx": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "qwen35": _Splitting(words=_QWEN35_WORDS, compose_unicode=True),
    "seed-coder": _Splitting(words=_SEED_WORDS),
    "exaone4": _Splitting(),
    "glm4": _GLM4,
    "chatglm-bpe": _GLM4,
    "tekken": _Splitting(words=_TEKKEN_WORDS, ignore_merges=True, add_bos=True),
    "gpt-4o": _O200K,
    "llama4": _O200K,
}


def gguf_tokenizer(metadata: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Rebuilds the tokenizer that a GGUF file describes.

    Byte-level vocabularies (`gpt2`) are exact, and so are Gemma 4's. SentencePiece vocabularies
    (`llama`) come without their merges, which are recovered from the scores.

    Args:
      metadata: the file's keys and values, as `read_metadata` returns them.

    Raises:
      ValueError: the file describes a kind of tokenizer or of word splitting that is not supported.
    """
    kind = metadata["tokenizer.ggml.model"]
    builders = {"gpt2": _byte_level, "llama": _sentencepiece, "gemma4": _sentencepiece}
    if kind not in builders:
        raise ValueError(f"tokenizer.ggml.model is {kind!r}; supported: {', '.join(builders)}")
    tokenizer, add_bos = builders[kind](metadata)
    # As the vocabulary spells them, which for runs of spaces is not how the file does.
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    _mark_added_tokens(tokenizer, tokens, _token_types(metadata))
    special = {role: _token(tokens, number) for role, number in _special_ids(metadata).items()}
    if metadata.get("tokenizer.ggml.add_bos_token", add_bos):
        if "bos_token" not in special:
            raise ValueError("the metadata lack tokenizer.ggml.bos_token_id, which begins a text")
        _prepend_bos(tokenizer, special["bos_token"])
    architecture = metadata["general.architecture"]
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata[f"{architecture}.context_length"],
        # Without this, version 4 of transformers feeds decoders token types, which they refuse.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **special,
    )
    return with_padding(wrapped)


_ROLES = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}
# What llama.cpp takes for the special tokens of a SentencePiece vocabulary that names none.
_SENTENCEPIECE_IDS = {"unk_token": 0, "bos_token": 1, "eos_token": 2}


def _special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    known = _SENTENCEPIECE_IDS if metadata["tokenizer.ggml.model"] == "llama" else {}
    keys = {role: f"tokenizer.ggml.{key}_token_id" for role, key in _ROLES.items()}
    return known | {role: metadata[key] for role, key in keys.items() if key in metadata}


def _token(tokens: Sequence[str], number: int) -> str:
    if not 0 <= number < len(tokens):
        raise ValueError(f"a special token has number {number}, of {len(tokens)} tokens")
    return tokens[number]


def _token_types(metadata: Mapping[str, Any]) -> Sequence[int]:
    """What each token is; a file that does not say has normal ones only."""
    tokens = metadata["tokenizer.ggml.tokens"]
    return metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))


def _byte_level(metadata: Mapping[str, Any]) -> tuple[Tokenizer, bool]:
    name = metadata.get("tokenizer.ggml.pre")
    if name not in _SPLITTINGS:
        raise ValueError(f"tokenizer.ggml.pre is {name!r}; supported: {', '.join(_SPLITTINGS)}")
    splitting = _SPLITTINGS[name]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=_vocabulary(metadata["tokenizer.ggml.tokens"]),
            merges=_stored_merges(metadata),
            ignore_merges=splitting.ignore_merges,
        )
    )
    steps: list[pre_tokenizers.PreTokenizer] = []
    if splitting.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if splitting.words is not None:
        steps.append(pre_tokenizers.Split(Regex(splitting.words), behavior="isolated"))
    own_words = splitting.words is None
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    if splitting.compose_unicode:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer, splitting.add_bos


def _sentencepiece(metadata: Mapping[str, Any]) -> tuple[Tokenizer, bool]:
    # Gemma's files spell runs of spaces as spaces, and everything else with the SentencePiece mark.
    tokens = [
        _SPACE * len(token) if token and not token.strip(" ") else token
        for token in metadata["tokenizer.ggml.tokens"]
    ]
    vocabulary = _vocabulary(tokens)
    if metadata["tokenizer.ggml.model"] == "gemma4":
        merges = _stored_merges(metadata)
    else:
        merges = _merges_from_scores(vocabulary, _scores(metadata))
    unknown = _token(tokens, metadata.get("tokenizer.ggml.unknown_token_id", 0))
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", _SPACE)
    back = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer, True


def _stored_merges(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]


def _scores(metadata: Mapping[str, Any]) -> list[float]:
    """SentencePiece keeps user-defined pieces whole before it looks at any score."""
    types = _token_types(metadata)
    stored = metadata.get("tokenizer.ggml.scores", [0.0] * len(types))
    return [
        np.inf if kind == _USER_DEFINED else score
        for score, kind in zip(stored, types, strict=True)
    ]


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = sorted({token for index, token in enumerate(tokens) if vocabulary[token] != index})
        raise ValueError(f"tokenizer.ggml.tokens repeats {', '.join(map(repr, twice[:5]))}")
    return vocabulary


def _merges_from_scores(
    vocabulary: Mapping[str, int], scores: Sequence[float]
) -> list[tuple[str, str]]:
    """Every way to cut a token into two tokens, best-scored token first.

    SentencePiece merges the neighbours whose union scores highest; ids break ties, as they follow
    the order of the merges.
    """
    order = sorted(vocabulary, key=lambda token: (-scores[vocabulary[token]], vocabulary[token]))
    return [
        (token[:cut], token[cut:])
        for token in order
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]


def _mark_added_tokens(tokenizer: Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Keeps control and user-defined tokens whole; decoding to plain text drops the former."""
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        added = [
            AddedToken(token, normalized=False, special=special)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ == kind
        ]
        tokenizer.add_tokens(added)


def _prepend_bos(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
