"""Tests of evaluation, report, package and the whole run on a tiny corpus, and of measures against known answers."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.corpus import tiny_recipe, write_corpus
from training import degrade, metrics
from training.config import AvcConfig, JointConfig, SelfLabelConfig, recipe_to_json
from training.package import package_checkpoint
from visxp_search.checkpoint import Architecture, Networks, load_checkpoint, save_checkpoint
from visxp_search.cli import main
from visxp_search.embed import Embeddings
from visxp_search.errors import UsageError
from visxp_search.l3net import L3NetEmbedder

HEADS = SelfLabelConfig(epochs=1, labellings=1, batch_size=8, rehearsal=2, n_heads=2, n_clusters=3, cluster_hidden=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `visxp train run` has made all stages from one recipe."""
    folder = tmp_path_factory.mktemp("all")
    write_corpus(folder / "corpus")
    avc = AvcConfig(epochs=1, batch_size=8, rehearsal=2, fusion_hidden=8)
    joint = JointConfig(views=1, epochs=2, batch_size=8)
    recipe = dataclasses.replace(tiny_recipe(epochs=1), avc=avc, selflabel=HEADS, joint=joint)
    (folder / "recipe.json").write_text(json.dumps(recipe_to_json(recipe)))
    arguments = ["train", "run", str(folder / "corpus"), "--out", str(folder / "out"), "--run", str(folder / "run")]
    assert main([*arguments, "--cache", str(folder / "cache"), "--recipe", str(folder / "recipe.json"), "--quiet"]) == 0
    return folder


def test_run_makes_all_stages_and_a_package(trained: Path) -> None:
    """One command leaves a checkpoint and an evaluation of each stage, and a package with card and measures."""
    for stage in ("warmstart", "avc", "selflabel", "joint"):
        assert load_checkpoint(trained / "run" / f"checkpoint_{stage}").checkpoint_id
        assert (trained / "run" / f"evaluation_{stage}" / "report.html").is_file()
    package = load_checkpoint(trained / "out")
    assert package.provenance["stages"] == ["warmstart", "avc", "selflabel", "joint"]
    assert package.checkpoint_id == load_checkpoint(trained / "run" / "checkpoint_joint").checkpoint_id
    card = (trained / "out" / "README.md").read_text()
    assert "| fusion network |" in card
    assert "2 clusterings of 3 clusters" in card
    stages = card.split("## What each stage adds")[1].split("## Limits")[0].strip().splitlines()
    assert [line.split(" | ")[0] for line in stages[2:]] == ["| warmstart", "| avc", "| selflabel", "| joint"]


def test_evaluation_has_baselines_and_intervals_in_every_table(trained: Path) -> None:
    """Each table measures the checkpoint beside a baseline, and each cell lies in [0, 1] with its interval."""
    evaluation = json.loads((trained / "run" / "evaluation_selflabel" / "evaluation.json").read_text())
    titles = [table["title"] for table in evaluation["tables"]]
    assert titles == [
        "Correspondence",
        "Across modalities",
        "By picture",
        "By sound",
        "Linear probe",
        "Clusters",
        "Same moment, by picture",
        "Same moment, by sound",
        "Neighbours of the teacher",
        "Photographs",
        "Sound files",
    ]
    for table in evaluation["tables"]:
        assert any("untrained" in row["name"] for row in table["rows"])
        for row in table["rows"]:
            assert set(row["values"]) == set(table["measures"])
            for cell in row["values"].values():
                assert cell["low"] <= cell["high"]
                assert cell["low"] >= -0.5
                assert cell["high"] <= 1 + 1e-6
    assert len(evaluation["clusters"]["used"]) == 2


def test_checkpoints_are_measured_beside_each_other(trained: Path, tmp_path: Path) -> None:
    """A run measures each stage beside the one before; the rows of the later one are those that it has alone."""
    arguments = ["train", "evaluate", str(trained / "corpus"), "--cache", str(trained / "cache"), "--quiet"]
    arguments += ["--model", str(trained / "run" / "checkpoint_selflabel"), "--out", str(tmp_path)]
    assert main(arguments) == 0
    alone = json.loads((tmp_path / "evaluation.json").read_text())
    both = json.loads((trained / "run" / "evaluation_selflabel" / "evaluation.json").read_text())
    name = f"checkpoint {load_checkpoint(trained / 'run' / 'checkpoint_avc').checkpoint_id}"
    for table, before in zip(both["tables"], alone["tables"], strict=True):
        others = [row for row in table["rows"] if name in row["name"]]
        assert others
        assert [row for row in table["rows"] if row not in others] == before["rows"]


def test_report_is_one_file_with_pictures(trained: Path) -> None:
    """The page embeds plots and strips of pictures and links to nothing."""
    page = (trained / "run" / "evaluation_selflabel" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
    assert page.count("data:image/jpeg;base64,") == 12
    assert "http" not in page
    assert "Cluster sizes" in page


def test_package_refuses_foreign_measures_and_big_weights(trained: Path, tmp_path: Path) -> None:
    """An evaluation of another checkpoint, and weights above the limit, are refused with the reason."""
    other = trained / "run" / "evaluation_avc" / "evaluation.json"
    with pytest.raises(UsageError, match="evaluate this one first"):
        package_checkpoint(trained / "run" / "checkpoint_selflabel", tmp_path, evaluations=[other])
    with pytest.raises(UsageError, match="more than"):
        package_checkpoint(trained / "out", tmp_path, evaluations=[], max_megabytes=0.001)


def test_embedder_tells_pseudo_labels_only_where_they_were_learned(trained: Path) -> None:
    """After self-labelling seconds have clusters by what they have of picture and sound; a warm start learned none."""
    embedder = L3NetEmbedder(trained / "out", device="cpu")
    random = np.random.default_rng(0)
    visual, audio = (
        random.standard_normal((4, embedder.specs[name].length)).astype(np.float32) for name in ("visual", "audio")
    )
    visual[[1, 3]], audio[[2, 3]] = np.nan, np.nan
    joint = np.zeros((4, 8), np.float32)
    embeddings = Embeddings(visual, audio, joint, joint)
    told = embedder.pseudo_labels(embeddings)
    assert told is not None
    assert told.cluster.shape == told.confidence.shape == (4, 2)
    assert (told.cluster[:3] >= 0).all()
    assert (told.confidence[:3] > 0).all()
    assert (told.cluster[1] == told.cluster_audio[1]).all()
    assert (told.cluster[2] == told.cluster_visual[2]).all()
    assert (told.cluster_visual[1] == -1).all()
    assert (told.cluster_audio[2] == -1).all()
    assert told.payload(3) == {}
    assert set(told.payload(2)) == {"cluster", "cluster_visual", "confidence"}
    warm = L3NetEmbedder(trained / "run" / "checkpoint_warmstart", device="cpu")
    assert warm.pseudo_labels(embeddings) is None


def test_checkpoints_without_heads_keep_their_form(tmp_path: Path) -> None:
    """A checkpoint without heads says nothing of heads in its config, so its id is what it was before heads were."""
    own = tiny_recipe()
    torch.manual_seed(0)
    networks = Networks(Architecture(own.spectrogram, own.visual, own.audio, joint=8))
    save_checkpoint(tmp_path, networks, provenance={}, card="")
    assert "heads" not in json.loads((tmp_path / "config.json").read_text())["architecture"]
    assert load_checkpoint(tmp_path).networks.fusion is None


def test_clustering_scores_of_known_clusterings() -> None:
    """Perfect clusters score 1 under any naming; one cluster for all scores 0, its purity the largest label's share."""
    labels = np.array(["a", "a", "b", "b", "b", "c"])
    perfect = metrics.clustering_scores(np.array([2, 2, 0, 0, 0, 1]), labels)
    assert all(value == pytest.approx(1) for value in perfect.values())
    single = metrics.clustering_scores(np.zeros(6, np.int64), labels)
    assert single["NMI"] == pytest.approx(0)
    assert single["purity"] == single["Hungarian"] == pytest.approx(0.5)


def test_bootstrap_interval_holds_the_value_and_narrows_with_groups() -> None:
    """The interval surrounds the mean; rows that are copies within few groups leave it wide."""
    random = np.random.default_rng(0)
    scores = random.random(400).astype(np.float32)
    alone = metrics.bootstrap_mean(scores, np.arange(400).astype(np.str_))
    copies = metrics.bootstrap_mean(scores[:4].repeat(100), np.arange(4).repeat(100).astype(np.str_))
    assert alone is not None
    assert copies is not None
    assert alone["low"] < alone["value"] < alone["high"]
    assert copies["high"] - copies["low"] > 3 * (alone["high"] - alone["low"])
    assert metrics.bootstrap_mean(np.full(3, np.nan, np.float32), np.array(["a", "b", "c"])) is None


def test_same_moment_counts_ties_as_lost() -> None:
    """A query finds its own moment only if nothing else is as similar."""
    rows = np.eye(3, dtype=np.float32)
    assert metrics.same_moment_found(rows, rows).tolist() == [1, 1, 1]
    rows[1] = rows[0]
    assert metrics.same_moment_found(rows, rows).tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", list(degrade.OF_FRAMES))
def test_degraded_frames_keep_their_shape_and_change(name: str) -> None:
    """A bad copy of a frame has its shape and type, differs, and is the same each time."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    changed = degrade.OF_FRAMES[name](frames)
    assert changed.shape == frames.shape
    assert changed.dtype == np.uint8
    assert (changed != frames).any()
    assert (changed == degrade.OF_FRAMES[name](frames)).all()


def test_degraded_waveforms_have_the_strengths_they_name() -> None:
    """Noise lies 10 dB below, softening takes 12 dB, the tilt rises 3 dB an octave, and 4 kHz ends at 4 kHz."""
    sound = (3000 * np.random.default_rng(0).standard_normal((1, 24_000))).astype(np.int16)

    def power(waveforms: np.ndarray) -> float:
        return float(np.square(waveforms.astype(float)).mean())

    assert 10 * np.log10(power(degrade.add_noise(sound) - sound) / power(sound)) == pytest.approx(-10, abs=0.2)
    assert 10 * np.log10(power(degrade.soften(sound)) / power(sound)) == pytest.approx(-12, abs=0.1)
    spectrum = np.abs(np.fft.rfft(degrade.tilt(sound)[0])) ** 2
    octave = 10 * np.log10(spectrum[4000:4400].mean() / spectrum[2000:2200].mean())
    assert octave == pytest.approx(3, abs=1)
    narrow = np.abs(np.fft.rfft(degrade.narrow(sound)[0])) ** 2
    assert narrow[4200:].mean() < 1e-4 * narrow[:3800].mean()
