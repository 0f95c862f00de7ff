"""Tokenizers rebuilt from GGUF metadata, and tokenizer folders, agree with their originals."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, trainers

from adakd_jax.hf.gguf_tokenizer import gguf_tokenizer
from adakd_jax.hf.tokenizer import load_tokenizer, save_tokenizer
from tests.hf.tiny import CHAT_TEMPLATE, SPECIAL, tokenizer_metadata

TEXTS = [
    "",
    "The boat crossed 42 bays.",
    "  two spaces,\ttab,\n\nnewlines ",
    "café — 日本語 🙂 naïve",
    "<|im_start|>user\nHello<|im_end|>\n",
]


@pytest.fixture(scope="module")
def metadata(tokenizer_model):
    return tokenizer_metadata(tokenizer_model)


@pytest.fixture(scope="module")
def rebuilt(metadata):
    return gguf_tokenizer(metadata)


@pytest.mark.parametrize("text", TEXTS)
def test_rebuilt_tokenizer_encodes_as_the_original(rebuilt, tokenizer, text):
    ids = rebuilt(text)["input_ids"]
    assert ids == tokenizer(text)["input_ids"]
    assert rebuilt.decode(ids) == text


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_a_round_trip(rebuilt, text):
    assert rebuilt.decode(rebuilt(text)["input_ids"]) == text


def test_special_tokens_ids_and_template(rebuilt):
    assert (rebuilt.bos_token_id, rebuilt.eos_token_id, rebuilt.pad_token_id) == (1, 2, 2)
    assert rebuilt.unk_token == SPECIAL[0] and rebuilt.model_max_length == 64
    assert rebuilt("<|im_end|>a")["input_ids"][0] == 2
    assert rebuilt.decode([1, 2], skip_special_tokens=True) == ""
    chat = rebuilt.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert set(rebuilt("a")) == {"input_ids", "attention_mask"}


def test_user_defined_tokens_stay_whole_and_visible(metadata):
    types = list(metadata["tokenizer.ggml.token_type"])
    types[-1] = 4
    last = metadata["tokenizer.ggml.tokens"][-1]
    tokenizer = gguf_tokenizer(metadata | {"tokenizer.ggml.token_type": types})
    assert tokenizer(f"x{last}y")["input_ids"].count(319) == 1
    assert tokenizer.decode([319], skip_special_tokens=True) != ""


def test_padding_falls_back_to_end_of_text(metadata):
    without = {k: v for k, v in metadata.items() if k != "tokenizer.ggml.padding_token_id"}
    tokenizer = gguf_tokenizer(without)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert len(tokenizer) == 320


def test_bos_goes_first_where_the_file_asks_for_it(metadata, rebuilt):
    tokenizer = gguf_tokenizer(metadata | {"tokenizer.ggml.add_bos_token": True})
    plain = rebuilt("A boat")["input_ids"]
    assert tokenizer("A boat")["input_ids"] == [1, *plain]
    assert tokenizer("A boat", add_special_tokens=False)["input_ids"] == plain


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "in 2024 we're", ["in", " 2024", " we", "'re"]),
        ("smollm", "in 2024", ["in", " ", "2", "0", "2", "4"]),
        ("llama-bpe", "IT'S 20245(x)", ["IT", "'S", " ", "202", "45", "(x", ")"]),
        ("qwen2", "IT'S 24(x)", ["IT", "'S", " ", "2", "4", "(x", ")"]),
        ("qwen2", "किया 24", ["क", "िय", "ा", " ", "2", "4"]),
        ("qwen35", "किया 24", ["किया", " ", "2", "4"]),
        ("qwen2", "a: 2;\n\nb", ["a", ":", " ", "2", ";\n\n", "b"]),
        ("seed-coder", "a: 2;\n\nb", ["a", ":", " ", "2", ";", "\n\n", "b"]),
        ("exaone4", "in 2024 we're", ["in", " 2024", " we", "'re"]),
        ("glm4", "IT'S 20245(x)", ["IT", "'S", " ", "202", "45", "(x", ")"]),
        ("gpt-4o", "HelloWorld's 2024//\n", ["Hello", "World's", " ", "202", "4", "//\n"]),
        ("tekken", "HelloWorld's 24//\n", ["Hello", "World", "'s", " ", "2", "4", "//\n"]),
    ],
)
def test_words_are_cut_as_each_family_cuts_them(metadata, pre, text, words):
    backend = gguf_tokenizer(metadata | {"tokenizer.ggml.pre": pre}).backend_tokenizer
    pieces = backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in pieces] == words


def test_llama3_and_tekken_add_bos_by_default(metadata):
    silent = {k: v for k, v in metadata.items() if k != "tokenizer.ggml.add_bos_token"}
    for pre, adds in {"llama-bpe": True, "tekken": True, "glm4": False, "smollm": False}.items():
        tokenizer = gguf_tokenizer(silent | {"tokenizer.ggml.pre": pre})
        assert (tokenizer("a")["input_ids"][0] == 1) == adds, pre


def sentencepiece_metadata(**changes):
    """Pieces with scores; "▁ab" can be made from "▁a"+"b" or "▁"+"ab", and "ab" scores higher."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    scored = {"ab": -1.0, "▁ab": -2.0, "▁a": -3.0, "▁": -4.0, "a": -5.0, "b": -6.0, "c": -7.0}
    return {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces + list(scored),
        "tokenizer.ggml.scores": [0.0] * len(pieces) + list(scored.values()),
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(scored),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    } | changes


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ab", ["▁ab"]),
        ("cab", ["▁", "c", "ab"]),
        ("ba ab", ["▁", "b", "a", "▁ab"]),
        ("é", ["▁", "<0xC3>", "<0xA9>"]),
    ],
)
def test_sentencepiece_merges_follow_the_scores(text, pieces):
    tokenizer = gguf_tokenizer(sentencepiece_metadata())
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", *pieces]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_sentencepiece_without_leading_space():
    tokenizer = gguf_tokenizer(
        sentencepiece_metadata(
            **{"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}
        )
    )
    ids = tokenizer("ab a")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["ab", "▁a"]
    assert tokenizer.decode(ids) == "ab a"


def test_gemmas_runs_of_spaces_stay_whole():
    """Its files spell them as spaces, score them last, and mark them user-defined."""
    plain = sentencepiece_metadata()
    tokenizer = gguf_tokenizer(
        plain
        | {
            "tokenizer.ggml.add_space_prefix": False,
            "tokenizer.ggml.tokens": plain["tokenizer.ggml.tokens"] + ["  ", "   "],
            "tokenizer.ggml.scores": plain["tokenizer.ggml.scores"] + [-1000.0, -1000.0],
            "tokenizer.ggml.token_type": plain["tokenizer.ggml.token_type"] + [4, 4],
        }
    )
    assert len(tokenizer) == len(plain["tokenizer.ggml.tokens"]) + 2
    ids = tokenizer("c   ab", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["c", "▁▁▁", "ab"]
    assert tokenizer.decode(ids) == "c   ab"


def test_gemma_4_has_merges_of_its_own():
    """As its tokenizer.json makes a tokenizer of the same vocabulary and merges."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *bytes_]
    original = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    original.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    sentences = [text for text in TEXTS if text.isascii()] * 3 + ["the boats and the bays"]
    original.train_from_iterator(sentences, trainer)
    content = json.loads(original.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].__getitem__)
    rebuilt = gguf_tokenizer(
        {
            "general.architecture": "gemma4",
            "gemma4.context_length": 64,
            "tokenizer.ggml.model": "gemma4",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": [-1000.0] * len(tokens),
            "tokenizer.ggml.token_type": [3] * 4 + [6] * 256 + [1] * (len(tokens) - 260),
            "tokenizer.ggml.merges": [" ".join(merge) for merge in content["merges"]],
            "tokenizer.ggml.bos_token_id": 2,
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.unknown_token_id": 3,
            "tokenizer.ggml.padding_token_id": 0,
            "tokenizer.ggml.add_space_prefix": False,
        }
    )
    assert len(content["merges"]) > 20
    for text in TEXTS:
        ids = rebuilt(text)["input_ids"]
        assert ids == [2, *original.encode(text, add_special_tokens=False).ids]
        assert rebuilt.decode(ids, skip_special_tokens=True) == text


def test_what_is_not_supported_is_named(metadata):
    with pytest.raises(ValueError, match=r"ggml\.model is 't5'; supported: gpt2, llama, gemma4"):
        gguf_tokenizer(metadata | {"tokenizer.ggml.model": "t5"})
    with pytest.raises(ValueError, match=r"ggml\.pre is 'viking'; supported: gpt-2, olmo, smollm"):
        gguf_tokenizer(metadata | {"tokenizer.ggml.pre": "viking"})
    twice = [*metadata["tokenizer.ggml.tokens"][:-1], "a"]
    with pytest.raises(ValueError, match="repeats 'a'"):
        gguf_tokenizer(metadata | {"tokenizer.ggml.tokens": twice})


def test_saved_folder_reads_back_and_suits_older_readers(tokenizer, tmp_path):
    tokenizer = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token=SPECIAL[2],
        extra_special_tokens=[SPECIAL[0]],
        chat_template=CHAT_TEMPLATE,
    )
    save_tokenizer(tokenizer, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == [SPECIAL[0]]
    assert "extra_special_tokens" not in config
    assert (tmp_path / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    loaded = load_tokenizer(tmp_path)
    save_tokenizer(loaded, tmp_path / "again")
    again = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert again == config | {"pad_token": SPECIAL[2]}
    for text in TEXTS:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == CHAT_TEMPLATE
    assert loaded.pad_token_id == loaded.eos_token_id == 2 and len(loaded) == 320


def test_several_chat_templates_are_written_and_read_back(tokenizer, tmp_path):
    named = {"default": CHAT_TEMPLATE, "tool_use": "{{ tools }}" + CHAT_TEMPLATE}
    tokenizer = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=SPECIAL[2], chat_template=named
    )
    tokenizer.save_pretrained(tmp_path / "given")  # transformers: a folder of templates
    loaded = load_tokenizer(tmp_path / "given")
    assert loaded.chat_template == named
    save_tokenizer(loaded, tmp_path / "written")
    assert load_tokenizer(tmp_path / "written").chat_template == named
    assert all(file.is_file() for file in (tmp_path / "written").iterdir())


def test_tokenizer_that_would_be_read_as_another_is_warned_about(tokenizer, tmp_path):
    with pytest.warns(UserWarning, match="as a Qwen2Tokenizer, which cuts text differently"):
        save_tokenizer(tokenizer, tmp_path, {"model_type": "qwen2"})
    assert not (tmp_path / "config.json").exists()


def test_folder_without_a_tokenizer_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="no tokenizer can be loaded from"):
        load_tokenizer(tmp_path)


def test_code_in_a_model_folder_is_never_run(tmp_path):
    mark = tmp_path / "executed"
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Tokenizer: ...\n")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": [None, "code.Tokenizer"]}})
    )
    with pytest.raises(ValueError, match="no tokenizer can be loaded from"):
        load_tokenizer(tmp_path)
    assert not mark.exists()
