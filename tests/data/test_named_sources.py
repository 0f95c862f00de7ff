import json

import huggingface_hub.constants
import pytest
import tensorflow_datasets as tfds

from adakd_jax.config.data import Columns, HubSource, TfdsSource
from adakd_jax.data.files import DataNotFoundError
from adakd_jax.data.sources import open_rows

ROW, OTHER = ({"instruction": text, "input": "", "output": "2"} for text in ("Add.", "Third"))


class TinyTalks(tfds.core.GeneratorBasedBuilder):
    """A data set as others write them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        turn = {"role": tfds.features.Text(), "content": tfds.features.Text()}
        features = {
            "question": tfds.features.Text(),
            "answers": tfds.features.Sequence(tfds.features.Text()),
            "messages": tfds.features.Sequence(turn),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "test": self._generate_examples(1)}

    def _generate_examples(self, count):
        turns = [{"role": "user", "content": "é"}, {"role": "assistant", "content": "b"}]
        for index in range(count):
            answers = ["one", "two"][:index]
            yield index, {"question": f"q{index}", "answers": answers, "messages": turns}


def test_any_tfds_name_and_slice(tmp_path):
    columns = Columns(instruction="question", output="answers")
    source = TfdsSource(name="tiny_talks", split="train[1:3]", data_dir=str(tmp_path / "tfds"))
    rows = open_rows(source, columns=columns, cache_dir=tmp_path / "cache")
    assert [row["instruction"] for row in rows] == ["q1", "q2"]
    assert rows[1]["outputs"] == ["one", "two"]
    assert rows[0]["messages"][0] == {"role": "user", "content": "é"}
    assert rows[0]["origin"] == "tiny_talks/train[1:3]:1"
    for wrong in (TfdsSource(name="no_such_data"), source.model_copy(update={"split": "dev"})):
        with pytest.raises(DataNotFoundError, match=r"no TFDS data set|it has: 'train', 'test'"):
            open_rows(wrong, columns=columns, cache_dir=tmp_path / "cache")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A local copy of a hub data set, laid out as the hub's client keeps it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "datasets--owner--talks"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    snapshot = folder / "snapshots" / ("a" * 40)
    (snapshot / "data").mkdir(parents=True)
    return snapshot


def test_a_hub_data_set_is_read_from_its_files(hub_cache, tmp_path):
    (hub_cache / "data" / "train-0.jsonl").write_text(json.dumps(ROW) + "\n")
    (hub_cache / "dataset_infos.json").write_text("{}")
    (hub_cache / "README.md").write_text("words")
    rows = open_rows(HubSource(name="owner/talks"), columns=Columns(), cache_dir=tmp_path / "cache")
    assert [row["origin"] for row in rows] == ["train-0.jsonl:1"]
    (hub_cache / "data" / "test-0.jsonl").write_text(json.dumps(OTHER) + "\n")
    with pytest.raises(ValueError, match=r"several kinds or splits.*data/test-0\.jsonl"):
        open_rows(HubSource(name="owner/talks"), columns=Columns(), cache_dir=tmp_path / "cache")
    chosen = HubSource(name="owner/talks", files="data/test-*")
    assert len(open_rows(chosen, columns=Columns(), cache_dir=tmp_path / "cache")) == 1
    with pytest.raises(DataNotFoundError, match=r"no file that matches 'none\*'"):
        none = HubSource(name="owner/talks", files="none*")
        open_rows(none, columns=Columns(), cache_dir=tmp_path / "cache")


def test_a_hub_data_set_that_cannot_be_reached_is_named(hub_cache, tmp_path):
    with pytest.raises(DataNotFoundError, match="'owner/absent' at 'v2' is not in the local cache"):
        source = HubSource(name="owner/absent", revision="v2")
        open_rows(source, columns=Columns(), cache_dir=tmp_path / "cache")
