"""The whole job of `adakd_jax.cache_teacher`: models, data, the cache, and what it loses."""

import numpy as np

from adakd_jax.config.teacher_cache import CacheCommand
from adakd_jax.console import Console
from adakd_jax.data.examples import Examples, tokenizer_digest
from adakd_jax.data.shuffle import permutation
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.positions import Reads, check_positions
from adakd_jax.sharding import entered, make_mesh, rules_of
from adakd_jax.teacher_cache.agreement import Teach, agreement, answers, check_same_teacher
from adakd_jax.teacher_cache.manifest import Manifest, data_settings, date_of, local_cache
from adakd_jax.teacher_cache.reading import TeacherCache
from adakd_jax.teacher_cache.records import Form
from adakd_jax.teacher_cache.served import ServedTeacher
from adakd_jax.teacher_cache.tables import tables
from adakd_jax.teacher_cache.verify import what_is_lost
from adakd_jax.teacher_cache.weights import LoadedTeacher
from adakd_jax.teacher_cache.writing import write_cache
from adakd_jax.training.chat import with_chat_template, with_date
from adakd_jax.training.checks import check_examples, check_models
from adakd_jax.training.data import read_data
from adakd_jax.training.inputs import teacher_key
from adakd_jax.training.models import describe, load_student, load_teacher

_STREAM = 0xCAC4E  # keeps the sample that is verified apart from other uses of the seed


def cache_teacher(config: CacheCommand, console: Console) -> None:
    """Write the cache of a run's teacher, or what is missing of it, and show what it loses.

    Raises:
        TeacherCacheError, EndpointError, ValueError: what is wrong, and what would be valid.
    """
    assert config.teacher is not None and config.teacher.cache is not None  # checks of the settings
    folder = local_cache(config.teacher.cache)
    mesh = make_mesh(config.mesh)
    for remark in check_models(config, mesh):
        console.print(f"note     {remark}", soft_wrap=True)
    teacher = None
    if config.endpoint is None or config.student.kind != "checkpoint":
        console.print(f"loading  {config.teacher.path}", soft_wrap=True)
        teacher = load_teacher(config.teacher, mesh, rules_of(config.mesh, "teacher"))
        console.print(f"teacher  {describe(teacher)}", soft_wrap=True)
        rows = Reads("data.max_length", config.data.max_length)
        check_positions(teacher.config, [rows], "the teacher")
    student = load_student(config, teacher, mesh)
    own = None if teacher is None else teacher.tokenizer
    student = with_chat_template(config.data, student, own, console)
    config = with_date(config, student, date_of(folder))
    examples, _ = read_data(config.data, student, config.seed, console)
    check_examples(config, examples, student, teacher)
    if config.endpoint is not None:
        teacher = None  # it was there for what the student takes of it
    manifest = describe_cache(config, examples, student, teacher)
    if teacher is None:
        teach: Teach = asked_server(config)
    else:
        teach = LoadedTeacher(
            teacher,
            config.top_k,
            manifest.form.vocabulary,
            row_length=config.data.max_length,
            batch_rows=config.batch_rows,
            mesh=mesh,
        )
    write_cache(folder, examples, manifest, teach, console)
    cache = TeacherCache(folder)
    console.print(f"cache    {folder}: {manifest.summary()}; {_size(cache)}", soft_wrap=True)
    if config.verify:
        sample = np.sort(permutation(len(examples), config.seed, _STREAM)[: config.verify])
        with entered(mesh):
            verify(config, cache, examples, sample, teach, (student, teacher), console)


def describe_cache(
    config: CacheCommand, examples: Examples, student: Pretrained, teacher: Pretrained | None
) -> Manifest:
    """The description of the cache that a command is to write.

    Raises:
        ValueError: k is more than there are tokens.
    """
    assert config.teacher is not None and student.tokenizer is not None
    sizes = [model.config.vocab_size for model in (student, teacher) if model is not None]
    if config.top_k > min(sizes):
        valid = f"1 to {min(sizes):,}"
        raise ValueError(f"top_k: {config.top_k}, but the vocabulary is smaller; valid: {valid}")
    return Manifest(
        teacher=config.teacher.path,
        licence=None if teacher is None else teacher.source.licence,
        source="weights" if config.endpoint is None else config.endpoint.url,
        form=Form(config.top_k, min(sizes), config.dtype),
        examples=len(examples),
        response_tokens=examples.report.response_tokens,
        shard_examples=config.shard_examples,
        data=data_settings(config),
        tokenizer=tokenizer_digest(student.tokenizer),
        weights=teacher_key(config.teacher) if config.endpoint is None else None,
    )


def asked_server(config: CacheCommand) -> ServedTeacher:
    """The teacher at the endpoint of a command."""
    assert config.endpoint is not None and config.teacher is not None
    return ServedTeacher(config.endpoint, config.teacher.path, config.top_k)


def verify(
    config: CacheCommand,
    cache: TeacherCache,
    examples: Examples,
    sample: np.ndarray,
    teach: Teach,
    models: tuple[Pretrained, Pretrained | None],
    console: Console,
) -> None:
    """Ask about some examples again, and show what the cache loses on them.

    Raises:
        TeacherCacheError: the teacher says something else than what is stored.
    """
    chosen = [examples[number] for number in sample.tolist()]
    places = cache.places_of(examples)[sample].tolist()
    stored = [cache[place] for place in places]
    found = agreement(stored, answers(teach, chosen))
    console.print(
        f"verified {len(chosen)} examples, {found.tokens:,} response tokens asked again: stored "
        f"log-probabilities are {found.mean:.1e} nats off on average, {found.largest:.1e} at most",
        soft_wrap=True,
    )
    check_same_teacher(found, cache.path)
    student, teacher = models
    if teacher is None:
        console.print("what the cache loses is measured with a loaded teacher only")
        return
    lost = what_is_lost(config, cache.manifest.form, student, teacher, chosen)
    for table in tables(lost):
        console.print(table)


def _size(cache: TeacherCache) -> str:
    """Bytes on disk, of all and of a response token."""
    size = sum(file.stat().st_size for file in cache.path.glob("*.array_record"))
    tokens = cache.manifest.response_tokens
    raw = cache.manifest.form.bytes_per_token
    return f"{size / 2**20:.1f} MiB, {size / tokens:.0f} bytes a token ({raw} before compression)"
