"""Whether the models of a run can read the tokens that its data gives them."""

from collections.abc import Iterator

from jax.sharding import Mesh

from adakd_jax.config import DistiLlm, Gkd, RunConfig
from adakd_jax.data.examples import Examples
from adakd_jax.hf.lora import lora_of
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.vocabulary import Embedding, check_known, embedding_of
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families import decoder_config
from adakd_jax.models.positions import Reads, check_positions
from adakd_jax.policies.responses import prompt_of
from adakd_jax.sharding import check_expert_axis, check_model, rules_of
from adakd_jax.teacher_cache.reading import TeacherCache
from adakd_jax.training.architecture import model_configs
from adakd_jax.training.positions import check_lengths


def check_models(config: RunConfig, mesh: Mesh | None) -> list[str]:
    """Refuse models that settings do not fit, before weights are read.

    Args:
        config: all settings.
        mesh: of the devices; None for one.

    Returns:
        Remarks on texts that are longer than a model was made for.

    Raises:
        MeshError: the mesh does not divide a model.
        TooLongError: rows or answers are longer than learned positions.
        ModelNotFoundError, ModelFileError: a configuration cannot be reached or read.
        ValueError: the student has no such projections as its adapters are to have, or no experts
            that a setting is about.
    """
    described = model_configs(config)
    teacher = None if described[0] is None else decoder_config(described[0])
    student = decoder_config(described[1])
    if config.student.lora is not None:
        lora_of(config.student.lora, student)
    _check_experts(config, student)
    if mesh is not None:
        check_expert_axis((teacher, student), mesh)
    for who, model in (("teacher", teacher), ("student", student)):
        if mesh is not None and model is not None:
            check_model(model, mesh, rules_of(config.mesh, who), who)
    return check_lengths(config, teacher, student)


def _check_experts(config: RunConfig, student: DecoderConfig) -> None:
    settings = config.student
    given = [
        f"student.{name} {value}"
        for name, value, default in (
            ("train_router", settings.train_router, True),
            ("balance_weight", settings.balance_weight, None),
        )
        if value != default
    ]
    if given and student.experts is None:
        raise ValueError(
            f"{' and '.join(given)}: a {student.family} model has no experts; valid: without these "
            "settings, or a student with experts"
        )


def check_examples(
    config: RunConfig,
    examples: Examples,
    student: Pretrained,
    teacher: Pretrained | None = None,
    cache: TeacherCache | None = None,
) -> None:
    """Refuse training examples that a model cannot read, or the student not answer.

    Args:
        config: all settings.
        examples: the training rows as tokens.
        student: the student.
        teacher: None if it is not loaded.
        cache: what is kept of the teacher in its place.

    Raises:
        UnknownTokensError: they hold tokens that a model has no embedding for.
        TooLongError: a prompt with its answer is longer than learned positions.
        ValueError: the student is to answer, and an example has no prompt.
    """
    embeddings = [embedding_of(student, "the student")]
    if teacher is not None:
        embeddings.append(embedding_of(teacher, "the teacher"))
    if cache is not None:
        name = f"the cached teacher {cache.manifest.teacher}"
        embeddings.append(Embedding(name, cache.manifest.form.vocabulary))
    found = examples.ids_from(min(each.size for each in embeddings))
    check_known("the training rows hold", found, embeddings, student.tokenizer)
    if isinstance(config.policy, Gkd | DistiLlm):
        longest = max(_prompt_lengths(examples))
        new = config.policy.generation.max_new_tokens
        told = "the longest prompt of a row + policy.generation.max_new_tokens"
        check_positions(student.config, [Reads(told, longest + new)], "the student")


def _prompt_lengths(examples: Examples) -> Iterator[int]:
    for example, row in zip(examples, examples.rows.tolist(), strict=True):
        try:
            yield len(prompt_of(example))
        except ValueError as error:
            raise ValueError(f"row {row} of the training data (from 0): {error}") from None
