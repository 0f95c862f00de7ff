from tests.training.conftest import (  # noqa: F401 - fixtures
    make_settings,
    rows,
    settings,
    stop_after,
    teacher,
)
