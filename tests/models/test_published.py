"""Published models are read at their published sizes."""

import pytest

from adakd_jax.models import decoder_config, parameter_count
from tests.models.published import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_published_number_of_parameters(name):
    published = PUBLISHED[name]
    counted = parameter_count(decoder_config(published.hf_config))
    assert counted == pytest.approx(published.parameters, rel=1e-3)
