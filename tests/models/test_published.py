"""Published models are read at their published sizes."""

import re
from pathlib import Path

import pytest

from adakd_jax.models import decoder_config, parameter_count
from adakd_jax.models.size import parameters_in_words
from tests.models.published import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_published_number_of_parameters(name):
    published = PUBLISHED[name]
    counted = parameter_count(decoder_config(published.hf_config))
    assert counted == pytest.approx(published.parameters, rel=1e-3)


def test_the_docs_say_how_many_parameters_are_active():
    config = decoder_config(PUBLISHED["Qwen3-30B-A3B"].hf_config)
    whole, active = re.findall(r"([\d,]+)\.\dM", parameters_in_words(config))
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    assert f"of Qwen3-30B-A3B {active}M of {whole}M" in page
