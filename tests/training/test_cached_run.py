"""Whole runs from a cached teacher: the same losses, without the teacher."""

import io
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.config.teacher_cache import CacheCommand
from adakd_jax.console import Console
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.vocabulary import UnknownTokensError
from adakd_jax.models import logits
from adakd_jax.teacher_cache import command as command_module
from adakd_jax.teacher_cache import measure, verify
from adakd_jax.teacher_cache.command import cache_teacher
from adakd_jax.teacher_cache.manifest import TeacherCacheError
from adakd_jax.teacher_cache.reading import TeacherCache
from adakd_jax.teacher_cache.tables import tables
from adakd_jax.training.data import read_data
from adakd_jax.training.dry_run import dry_run
from adakd_jax.training.prepare import prepare
from adakd_jax.training.records import read_records
from tests.hf.tiny import TINY_LLAMA, make_pretrained, tiny_teacher
from tests.training.tiny_run import run

VOCABULARY = TINY_LLAMA["vocab_size"]
RUN = {
    "evaluation": {"before": False, "generate_examples": 0, "batch_rows": 2},
    "optimizer": {"learning_rate": 5e-3},
    "training": {"steps": 4, "batch_rows": 2},
    "distill": {"ce_weight": 0.2, "score": {"kind": "label_gap"}},
}


def command(config, **settings):
    """Settings of `adakd_jax.cache_teacher` for a run."""
    return CacheCommand.model_validate(config.model_dump() | {"verify": 0} | settings)


def train_records(config):
    return [record for record in read_records(config.run_dir) if record["kind"] == "train"]


@pytest.fixture(scope="module")
def cache(make_settings, teacher, tmp_path_factory):
    """A cache that leaves nothing out but one token, and its settings."""
    folder = tmp_path_factory.mktemp("cache")
    config = make_settings("unused", teacher={"path": str(teacher), "cache": str(folder)})
    cache_teacher(command(config, top_k=VOCABULARY - 1, shard_examples=7), Console(quiet=True))
    return folder


def test_a_cache_that_leaves_nothing_out_trains_alike_without_the_teacher(
    settings, cache, teacher, tmp_path
):
    student = {"kind": "checkpoint", "path": str(teacher)}
    with_teacher = settings("with", student=student, **RUN)
    run(with_teacher)
    # Its own path leads nowhere: nothing of it is read.
    gone = {"path": "nobody/nothing", "cache": str(cache)}
    without = settings("without", student=student, teacher=gone, **RUN)
    shown = run(without)
    assert f"cached: {VOCABULARY - 1} of {VOCABULARY}" in shown and "loading" not in shown
    assert "teacher.path names another teacher: nobody/nothing" in shown
    pairs = zip(train_records(with_teacher), train_records(without), strict=True)
    for expected, found in pairs:
        for key in ("loss", "ce_loss", "forward_kl", "reverse_kl", "grad_norm", "score_q50"):
            # The first step compares equal models: what is left is rounding to float16.
            assert found[key] == pytest.approx(expected[key], rel=5e-3, abs=1e-5), key
        assert found["selected_tokens"] == expected["selected_tokens"]
    after = json.loads((tmp_path / "without/evaluation/after.json").read_text())
    assert "nll" in after and "reverse_kl" not in after
    card = (tmp_path / "without/export/README.md").read_text()
    assert f"{VOCABULARY - 1} tokens and the mass of all others" in card


def test_layers_of_the_teacher_are_taken_once(settings, cache, teacher):
    config = settings(teacher={"path": str(teacher), "cache": str(cache)})
    sizes = dry_run(config, Console(quiet=True))
    assert sizes["teacher"] == 0 and sizes["student"] > 0
    rows, length = config.training.batch_rows, config.data.max_length
    assert sizes["batch"] == 4 * rows * length * (4 + 2 * (VOCABULARY - 1) + 1)


def test_a_cache_of_other_tokens_is_refused_before_training(settings, cache, teacher):
    data = settings().data.model_dump() | {"max_length": 40, "max_prompt_length": 20}
    config = settings(data=data, teacher={"path": str(teacher), "cache": str(cache)}, **RUN)
    with pytest.raises(TeacherCacheError, match=r"max_length: 64 -> 40"):
        run(config)
    assert not (Path(config.run_dir) / "metrics.jsonl").exists()


def test_a_cache_says_what_the_teacher_says(cache, teacher, make_settings):
    """Against the forward pass of one unpacked example."""
    config = make_settings("unused")
    model = load_pretrained(teacher)
    examples, _ = read_data(config.data, model, config.seed, Console(quiet=True))
    example, (ids, log_probs, tail) = examples[4], TeacherCache(cache)[4]
    decoder, length = nnx.merge(model.graphdef, model.params), len(example.tokens)
    inputs = (example.tokens[None], np.arange(length)[None], np.ones((1, length), int))
    hidden = decoder(*(jnp.asarray(x, jnp.int32) for x in inputs))
    log_p = np.asarray(jax.nn.log_softmax(logits(hidden, decoder.head())[0]))
    places = np.flatnonzero(example.targets[1:])
    np.testing.assert_allclose(log_probs, np.take_along_axis(log_p[places], ids, -1), atol=0.02)
    left = [np.setdiff1d(np.arange(VOCABULARY), row)[0] for row in ids]
    np.testing.assert_allclose(tail, log_p[places, left], atol=1e-3)


def test_what_is_verified_is_what_there_is(make_settings, teacher, tmp_path, monkeypatch):
    for name in ("SCORES", "DIVERGENCES"):  # all of them would take a minute to compile
        rules = getattr(measure, name)
        kept = {rule: rules[rule] for rule in ("forward_kl", "reverse_kl", "hellinger")}
        monkeypatch.setattr(measure, name, kept)
    monkeypatch.setattr(verify, "KS", (4, VOCABULARY - 1))
    config = make_settings(
        tmp_path / "run", teacher={"path": str(teacher), "cache": str(tmp_path / "cache")}
    )
    console = Console(record=True, width=160, file=io.StringIO())
    seen = []
    monkeypatch.setattr(command_module, "tables", lambda lost: seen.append(lost) or tables(lost))
    distill = {"divergence": {"kind": "forward_kl"}}
    cache_teacher(command(config, top_k=4, verify=3, distill=distill), console)
    told, (lost,) = console.export_text(), seen
    assert "verified 3 examples" in told and "k = 4" in told
    few, all_but_one = lost.cuts[4], lost.cuts[VOCABULARY - 1]
    whole = lost.divergences["forward_kl"].whole
    assert 1e-3 < few.forward_kl < whole and few.loss["bucket"] > 1e-3
    assert few.teacher_tail > 0.05 > all_but_one.teacher_tail
    assert abs(all_but_one.forward_kl) < 1e-3 * whole
    assert few.gradient["bucket"] > 1e-2 and few.gradient["even"] > 1e-2
    for tail in ("bucket", "even"):  # one token left out is spread evenly over itself
        assert all_but_one.loss[tail] < 1e-2 and all_but_one.gradient[tail] < 1e-2
    assert lost.scores["hellinger"].overlap[VOCABULARY - 1] > 0.9


def test_tokens_that_the_cached_teacher_has_not_are_refused(settings, cache, teacher, tmp_path):
    tokenizer = tiny_teacher().tokenizer
    assert tokenizer is not None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    resized = make_pretrained(TINY_LLAMA | {"vocab_size": VOCABULARY + 1}, tokenizer)
    student = {"kind": "checkpoint", "path": str(save_pretrained(resized, tmp_path / "resized"))}
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Look.", "output": "<tool>"}\n')
    data = settings().data.model_dump() | {
        "train": {"kind": "file", "path": str(rows)},
        "validation_fraction": 0.0,
    }
    kept = {"path": str(teacher), "cache": str(cache)}
    quiet_run = RUN | {"evaluation": {"generate_examples": 0, "token_snapshots": 0}}
    config = settings(data=data, student=student, teacher=kept, **quiet_run)
    with pytest.raises(
        UnknownTokensError, match=rf"the cached teacher .*'<tool>' \({VOCABULARY}\)"
    ):
        prepare(config, Console(quiet=True))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", "{", r"manifest\.json is not readable JSON.*make it again with"),
        ("manifest.json", '{"format": 1}', r"manifest\.json does not describe a cache"),
        ("index.npy", "no array", r"index\.npy cannot be read"),
    ],
)
def test_a_broken_file_of_a_cache_is_named(cache, tmp_path, file, content, message):
    copy = shutil.copytree(cache, tmp_path / "copy")
    (copy / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        assert len(TeacherCache(copy).index)
