"""Tests of the warm start on a tiny corpus: whole command, resume and refusals."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.corpus import SAMPLE_RATE_HZ, tiny_recipe, write_corpus
from training import config, state, warmstart
from training.baselines import centre_and_normalise
from training.config import Recipe, recipe_from_file, recipe_to_json
from training.corpus import Examples, load_examples, match_pairs
from training.warmstart import train_warmstart
from visxp_search.checkpoint import load_checkpoint
from visxp_search.cli import main
from visxp_search.errors import UsageError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus, written once."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def examples(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Examples]:
    """Both modalities of the corpus, decoded."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        modality: load_examples(
            corpus, modality=modality, cache=cache, sample_rate_hz=SAMPLE_RATE_HZ, progress=lambda *_: None
        )
        for modality in ("visual", "audio")
    }


def test_pairs_are_the_same_second_of_the_same_video(examples: dict[str, Examples]) -> None:
    """Every pair has one file and one second, so its frame and sound overlap in time; every video second is paired."""
    visual, audio = examples["visual"], examples["audio"]
    first, second = match_pairs(visual, audio)
    assert (visual.files[first] == audio.files[second]).all()
    assert (visual.seconds[first] == audio.seconds[second]).all()
    assert len(first) == visual.is_video.sum()


def test_no_group_is_on_both_sides(examples: dict[str, Examples]) -> None:
    """Held-out rows share no group with the others, and both sides are there."""
    for rows in examples.values():
        assert rows.held_out.any()
        assert not set(rows.groups[rows.held_out]) & set(rows.groups[~rows.held_out])


def test_a_run_folder_keeps_to_its_settings(examples: dict[str, Examples], tmp_path: Path) -> None:
    """A run that was begun with other settings is not taken up by these."""
    for epochs in (1, 1):
        train_warmstart(
            examples["audio"], tiny_recipe(epochs=epochs), modality="audio", run=tmp_path, progress=lambda *_: None
        )
    with pytest.raises(UsageError, match="other settings"):
        train_warmstart(
            examples["audio"], tiny_recipe(epochs=2), modality="audio", run=tmp_path, progress=lambda *_: None
        )


def test_a_visual_encoder_is_given_its_grid_and_the_teachers_features(
    examples: dict[str, Examples], tmp_path: Path
) -> None:
    """Its features are of the kinds that the teacher tells apart, of pictures that were held out too."""
    visual = examples["visual"]
    encoder = train_warmstart(visual, tiny_recipe(), modality="visual", run=tmp_path, progress=lambda *_: None)
    assert encoder.config == tiny_recipe().visual
    held_out, others = np.flatnonzero(visual.held_out), np.flatnonzero(~visual.held_out)
    found, learned = (
        warmstart.compute_features(encoder, visual, rows, recipe=tiny_recipe()) for rows in (held_out, others)
    )
    found, learned = (centre_and_normalise(rows - learned.mean(axis=0)) for rows in (found, learned))
    nearest = (found @ learned.T).argmax(axis=1)
    assert (visual.labels[held_out] == visual.labels[others[nearest]]).mean() > 0.9


def test_a_grid_wants_no_more_features_than_the_teacher_has(examples: dict[str, Examples], tmp_path: Path) -> None:
    """Said before anything is trained."""
    recipe = dataclasses.replace(tiny_recipe(), visual=dataclasses.replace(tiny_recipe().visual, embedding=9))
    with pytest.raises(UsageError, match="the teacher's, which has 8; the recipe wants 9"):
        train_warmstart(examples["visual"], recipe, modality="visual", run=tmp_path, progress=lambda *_: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("modality", "epochs", "restart_epochs", "done_before_the_stop"),
    [("visual", 2, 0, 1), ("audio", 2, 0, 1), ("audio", 1, 2, 1), ("audio", 1, 2, 2)],
)
def test_resuming_equals_not_having_stopped(
    modality: str,
    epochs: int,
    restart_epochs: int,
    done_before_the_stop: int,
    examples: dict[str, Examples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that is stopped in a cycle, or between two, and started again ends with the same bits."""
    recipe = tiny_recipe(epochs=epochs)
    settings = dataclasses.replace(getattr(recipe, f"warmstart_{modality}"), restart_epochs=restart_epochs)
    recipe = dataclasses.replace(recipe, **{f"warmstart_{modality}": settings})

    def train(run: Path) -> dict[str, torch.Tensor]:
        return train_warmstart(
            examples[modality], recipe, modality=modality, run=run, progress=lambda *_: None
        ).state_dict()

    whole = train(tmp_path / "whole")
    save = state.save_state

    def save_and_stop(path: Path, parts: dict[str, object], epoch: int) -> None:
        save(path, parts, epoch)
        if epoch == done_before_the_stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(warmstart, "save_state", save_and_stop)
        train(tmp_path / "halves")
    resumed = train(tmp_path / "halves")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_command_trains_and_writes_a_checkpoint(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`visxp train warmstart` lowers the loss, writes a checkpoint that loads, and says so as JSON."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_to_json(tiny_recipe())))
    out, run = tmp_path / "checkpoint", tmp_path / "run"
    arguments = [
        "train",
        "warmstart",
        str(corpus),
        "--out",
        str(out),
        "--run",
        str(run),
        "--cache",
        str(tmp_path / "c"),
    ]
    assert main([*arguments, "--recipe", str(recipe), "--epochs", "4", "--threads", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    checkpoint = load_checkpoint(out)
    assert printed["checkpoint"] == checkpoint.checkpoint_id
    assert checkpoint.provenance["recipe"]["warmstart_visual"]["epochs"] == 4
    assert "Limits" in (out / "README.md").read_text()
    for modality in ("visual", "audio"):
        with (run / f"warmstart_{modality}.csv").open() as lines:
            losses = [float(row["warmstart/features"]) for row in csv.DictReader(lines)]
        assert len(losses) == 4
        assert losses[-1] < losses[0]
    with np.load(corpus / "teachers.npz") as teachers:
        assert set(checkpoint.provenance["corpus"]["manifest_rows"].values()) == {
            len(teachers["visual_file"]),
            len(teachers["audio_file"]),
        }


def test_encoders_can_be_trained_one_by_one(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` for one encoder, then for the other, then neither: the checkpoint is that of a single run."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_to_json(tiny_recipe(epochs=1))))

    def train(name: str, *options: str) -> str:
        folders = [
            "--out",
            str(tmp_path / name),
            "--run",
            str(tmp_path / f"run_{name}"),
            "--cache",
            str(tmp_path / "c"),
        ]
        arguments = ["train", "warmstart", str(corpus), *folders, "--recipe", str(recipe), "--threads", "1", "--json"]
        assert main([*arguments, *options]) == 0
        return str(json.loads(capsys.readouterr().out).get("checkpoint", ""))

    assert not train("parts", "--only", "visual")
    assert not train("parts", "--only", "audio")
    assert not (tmp_path / "parts").exists()
    assert train("parts") == train("whole")


def test_wrong_use_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is no corpus, a recipe that is none and a run of other settings end with code 2 and the reason."""
    options = ["--out", str(tmp_path / "o"), "--run", str(tmp_path / "r"), "--cache", str(tmp_path / "c")]
    assert main(["train", "warmstart", str(tmp_path), *options]) == 2
    assert "manifest.csv" in capsys.readouterr().err
    assert main(["train", "warmstart", str(tmp_path), *options, "--only", "smell"]) == 2
    assert "visual or audio" in capsys.readouterr().err
    (tmp_path / "recipe.json").write_text('{"seed": 0, "magic": {}}')
    assert main(["train", "warmstart", str(tmp_path), *options, "--recipe", str(tmp_path / "recipe.json")]) == 2
    assert "does not fit" in capsys.readouterr().err


def test_the_recipe_of_the_shipped_checkpoint_is_the_built_in_one() -> None:
    """`recipe_default.json` says what the built-in settings are: whoever reads it reads what a run without it does."""
    assert recipe_from_file(Path(config.__file__).with_name("recipe_default.json")) == Recipe()


def test_recipe_survives_its_file(tmp_path: Path) -> None:
    """A recipe read from its file is the recipe itself; a file that is not there is refused."""
    recipe = tiny_recipe()
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe_to_json(recipe)))
    assert recipe_from_file(path) == recipe
    with pytest.raises(UsageError, match="cannot be read"):
        recipe_from_file(tmp_path / "absent.json")
