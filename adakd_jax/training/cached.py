"""A run's teacher on disk: opened, and told of."""

from adakd_jax.config import RunConfig
from adakd_jax.teacher_cache.reading import TeacherCache


def open_cache(config: RunConfig) -> TeacherCache | None:
    """The teacher's cache, if the settings name one.

    Raises:
        TeacherCacheError: it is not there, or not complete.
    """
    if config.teacher is None or config.teacher.cache is None:
        return None
    return TeacherCache(config.teacher.cache)


def told_of(cache: TeacherCache, config: RunConfig) -> str:
    """What it holds and what follows, with a warning where the settings name another teacher."""
    assert config.teacher is not None
    told = (
        f"{cache.manifest.summary()}\n"
        "         it is not loaded: evaluations have no KL and no agreement with it"
    )
    if config.teacher.path == cache.manifest.teacher:
        return told
    return f"{told}\nwarning: teacher.path names another teacher: {config.teacher.path}"
