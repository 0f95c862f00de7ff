"""A tokenizer whose tokens can be counted by hand: one a byte, but for '\\n\\n' and 'ab'."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from adakd_jax.config.data import Columns, FileSource
from adakd_jax.data.rows import Row
from adakd_jax.data.sources import open_rows

CHATML = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def make_tokenizer(chat_template=None, begin=False, trim=False, regex=False):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("a", "b")]
    words = [*letters, *("".join(pair) for pair in merges)]
    model = models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<|start|>", "<|stop|>"]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    steps = [processors.ByteLevel(trim_offsets=True)] if trim else []
    if begin:
        number = tokenizer.token_to_id("<|begin|>")
        steps.append(
            processors.TemplateProcessing(
                single="<|begin|> $A", pair="$A $B", special_tokens=[("<|begin|>", number)]
            )
        )
    if steps:
        tokenizer.post_processor = processors.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        chat_template=chat_template,
    )


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer():
    return make_tokenizer(CHATML)


def row(
    instruction="",
    input="",
    outputs=(),
    messages=(),
    text="",
    cut=False,
    tools=(),
    template_kwargs=None,
    generated=False,
):
    return Row(
        instruction=instruction,
        input=input,
        outputs=list(outputs),
        messages=[
            turn if isinstance(turn, dict) else {"role": turn[0], "content": turn[1]}
            for turn in messages
        ],
        tools=list(tools),
        template_kwargs=template_kwargs or {},
        text=text,
        cut=cut,
        generated=generated,
        origin="rows.jsonl:1",
    )


@pytest.fixture(scope="session")
def make_row():
    return row


@pytest.fixture(scope="session")
def tokenizer_with():
    return make_tokenizer


@pytest.fixture
def write_lines(tmp_path):
    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
        path.write_text("".join(line + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def open_file(tmp_path):
    def open_path(path, **options):
        options = {"columns": Columns(), "cache_dir": tmp_path / "cache"} | options
        return open_rows(FileSource(path=str(path)), **options)

    return open_path
