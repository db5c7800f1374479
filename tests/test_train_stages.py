"""Tests of correspondence training and self-labelling on a tiny corpus: learning, resuming, several processes."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.corpus import SAMPLE_RATE_HZ, tiny_recipe, write_corpus
from training import avc, hierarchy, joint, labelling, selflabel
from training.avc import find_negatives, train_avc
from training.config import AvcConfig, HierarchyConfig, JointConfig, Recipe, SelfLabelConfig, recipe_to_json
from training.data import load_material
from training.distributed import Workers
from training.hierarchy import place_leaves, place_seconds, position_loss, train_hierarchy
from training.joint import draw_groups, train_joint
from training.pairs import Pairs, Rehearsal, plan_epoch, set_centres
from training.selflabel import train_selflabel
from training.stage import add_heads
from training.state import read_rows
from visxp_search import heads
from visxp_search.checkpoint import Architecture, Networks, load_checkpoint, save_checkpoint
from visxp_search.cli import main
from visxp_search.errors import UsageError

ALONE = Workers(0, 1, torch.device("cpu"))
AVC = AvcConfig(
    epochs=2,
    batch_size=8,
    rehearsal=4,
    fusion_hidden=16,
    learning_rate=5e-3,
    encoder_learning_rate=2e-3,
    freeze_norm=False,
)
SELFLABEL = SelfLabelConfig(
    epochs=2, labellings=2, batch_size=8, rehearsal=4, n_heads=2, n_clusters=3, cluster_hidden=16
)
JOINT = JointConfig(views=2, epochs=2, batch_size=8)
HIERARCHY = HierarchyConfig(epochs=2, batch_size=8, rehearsal=4, hidden=16)


def recipe() -> Recipe:
    """The tiny recipe with all stages."""
    return dataclasses.replace(tiny_recipe(), avc=AVC, selflabel=SELFLABEL, hierarchy=HIERARCHY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny corpus and its cache."""
    return write_corpus(tmp_path_factory.mktemp("corpus")), tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(corpus: tuple[Path, Path]) -> tuple[Pairs, Rehearsal | None]:
    """Its pairs and what is rehearsed."""
    material = load_material(corpus[0], cache=corpus[1], sample_rate_hz=SAMPLE_RATE_HZ, progress=lambda *_: None)
    return material.pairs, material.rehearsal


@pytest.fixture
def networks(data: tuple[Pairs, Rehearsal | None]) -> Networks:
    """Untrained tiny networks, always the same."""
    torch.manual_seed(0)
    own = tiny_recipe()
    untrained = Networks(Architecture(own.spectrogram, own.visual, own.audio, joint=8))
    set_centres(untrained, data[0], device=torch.device("cpu"))
    return untrained


def run_avc(networks: Networks, data: tuple[Pairs, Rehearsal | None], run: Path, config: AvcConfig = AVC) -> Networks:
    """Correspondence training in this process."""
    pairs, rehearsal = data
    return train_avc(
        networks, pairs, config, rehearsal=rehearsal, seed=0, run=run, workers=ALONE, progress=lambda *_: None
    )


def run_selflabel(networks: Networks, data: tuple[Pairs, Rehearsal | None], run: Path) -> Networks:
    """Self-labelling in this process."""
    pairs, rehearsal = data
    return train_selflabel(
        networks, pairs, SELFLABEL, rehearsal=rehearsal, seed=0, run=run, workers=ALONE, progress=lambda *_: None
    )


def run_hierarchy(networks: Networks, data: tuple[Pairs, Rehearsal | None], run: Path) -> Networks:
    """Hierarchy training in this process."""
    pairs, rehearsal = data
    return train_hierarchy(
        networks, pairs, HIERARCHY, rehearsal=rehearsal, seed=0, run=run, workers=ALONE, progress=lambda *_: None
    )


def run_joint(networks: Networks, data: tuple[Pairs, Rehearsal | None], run: Path) -> Networks:
    """Heads on pairs in this process."""
    return train_joint(networks, data[0], JOINT, seed=0, run=run, workers=ALONE, progress=lambda *_: None)


def test_negatives_are_of_other_groups_or_hard_ones_of_other_seconds(data: tuple[Pairs, Rehearsal | None]) -> None:
    """Never a negative of the same group, unless hard ones are wanted: then other seconds of the same video."""
    pairs, rows = data[0], np.arange(12)
    plain, hard = find_negatives(pairs, rows, hard=False), find_negatives(pairs, rows, hard=True)
    for a in rows:
        for b in rows:
            same_group = pairs.groups[a] == pairs.groups[b]
            assert plain[a, b] == (not same_group)
            other_second = pairs.files[a] == pairs.files[b] and pairs.seconds[a] != pairs.seconds[b]
            assert hard[a, b] == (not same_group or other_second)


@pytest.mark.parametrize("same_video", [False, True])
def test_an_epoch_is_a_shuffle_without_repetition(data: tuple[Pairs, Rehearsal | None], same_video: bool) -> None:
    """An epoch's batches hold each row at most once, follow seed and epoch, and couple seconds where wanted."""
    pairs = data[0]
    rows = pairs.training_rows

    def plan(epoch: int) -> np.ndarray:
        options = {"batch_size": 4, "batches_per_step": 2, "seed": 1, "same_video": same_video}
        return plan_epoch(rows, pairs.files[rows], epoch=epoch, **options)  # type: ignore[arg-type]

    first = plan(0)
    assert first.shape[1:] == (2, 4)
    assert len(set(first.flatten().tolist())) == first.size
    assert set(first.flatten().tolist()) <= set(rows.tolist())
    assert (first == plan(0)).all()
    assert (first != plan(1)).any()
    if same_video:
        assert all((pairs.files[batch[0::2]] == pairs.files[batch[1::2]]).all() for batch in first.reshape(-1, 4))


@pytest.mark.slow
def test_correspondence_is_learned(
    data: tuple[Pairs, Rehearsal | None], networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours and pitches that go together are told from those that do not, on training pairs."""
    monkeypatch.setattr(heads, "DROPOUT", 0.0)  # embeddings of 16 numbers cannot spare half of them
    weights = {"avc/correspondence": 1.0, "avc/contrastive": 0.5}
    config = dataclasses.replace(AVC, epochs=12, fusion_hidden=64, rehearsal=0, loss_weights=weights)
    config = dataclasses.replace(config, learning_rate=2e-2, encoder_learning_rate=5e-3)
    run_avc(networks, data, tmp_path, config)
    rows = read_rows(tmp_path, "avc")
    assert min(row["avc/correspondence"] for row in rows[-3:]) < 0.93 * rows[0]["avc/correspondence"]
    assert max(row["avc/accuracy"] for row in rows[-3:]) > 0.62  # kinds repeat among groups: not all can be told
    assert (tmp_path / "tensorboard" / "avc").is_dir()


@pytest.mark.parametrize("stage", ["avc", "selflabel", "joint", "hierarchy"])
def test_resuming_equals_not_having_stopped(
    stage: str,
    data: tuple[Pairs, Rehearsal | None],
    networks: Networks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stage that is stopped after its first epoch and started again ends with the same bits."""
    clusters = {"n_heads": 2, "n_clusters": 5, "cluster_hidden": 16} if stage == "hierarchy" else {}
    start = networks if stage == "avc" else add_heads(networks, fusion_hidden=16, **clusters)
    module = {"avc": avc, "selflabel": selflabel, "joint": joint, "hierarchy": hierarchy}[stage]
    runs = {"avc": run_avc, "selflabel": run_selflabel, "joint": run_joint, "hierarchy": run_hierarchy}
    train = runs[stage]
    whole = train(start, data, tmp_path / "whole").state_dict()
    save = module.save_state

    def save_and_stop(path: Path, parts: dict[str, object], epoch: int) -> None:
        save(path, parts, epoch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "save_state", save_and_stop)
        train(start, data, tmp_path / "halves")
    resumed = train(start, data, tmp_path / "halves").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_groups_come_evenly_however_long_they_are() -> None:
    """A batch holds different groups; of 1 and of 99 seconds each gives half of the rows, and all seconds come."""
    groups = np.array(["short"] + ["long"] * 99)
    rows = np.concatenate([draw_groups(groups, batch_size=64, seed=(0, epoch)) for epoch in range(20)])
    assert rows.shape == (1000, 2)
    assert ((rows == 0).sum(axis=1) == 1).all()
    assert set(rows.flatten().tolist()) == set(range(100))
    assert (draw_groups(groups, batch_size=64, seed=(0, 3)) == rows[150:200]).all()


def test_joint_heads_are_learned_on_encoders_at_rest(
    data: tuple[Pairs, Rehearsal | None], networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures come to lie nearer their own sounds than those of other kinds, and the encoders keep every bit."""
    monkeypatch.setattr(heads, "DROPOUT", 0.0)  # embeddings of 16 numbers cannot spare half of them
    config = dataclasses.replace(JOINT, epochs=40, learning_rate=1e-2)
    before = add_heads(networks, fusion_hidden=16)
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    after = train_joint(before, data[0], config, seed=0, run=tmp_path, workers=ALONE, progress=lambda *_: None)
    assert all(torch.equal(kept[name], value) for name, value in before.state_dict().items())
    changed = {name.split(".")[0] for name, value in after.state_dict().items() if not torch.equal(kept[name], value)}
    assert changed == {"joint_visual", "joint_audio", "fusion"}
    losses = [row["avc/contrastive"] for row in read_rows(tmp_path, "joint")]
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_selflabelling_keeps_sizes_and_logs_rounds(
    data: tuple[Pairs, Rehearsal | None], networks: Networks, tmp_path: Path
) -> None:
    """Each round's labels have the wanted sizes (to one pair), and its log says how many clusters are used."""
    run_selflabel(add_heads(networks, fusion_hidden=16), data, tmp_path)
    rounds = read_rows(tmp_path, "selflabel_rounds")
    assert [row["epoch"] for row in rounds] == [0, 1]
    n_pairs = len(data[0].training_rows)
    for row in rounds:
        assert row["size_error"] * n_pairs / SELFLABEL.n_clusters <= 1.5
        assert 0 < row["used"] <= 1
    assert 0 <= rounds[1]["change"] <= 1


def test_gaussian_labels_have_the_sizes_wanted_and_not_their_inverse(
    data: tuple[Pairs, Rehearsal | None], networks: Networks
) -> None:
    """Large wanted clusters come out large, where published code scales by one over the wanted sizes."""
    random = torch.Generator().manual_seed(0)
    embedded = labelling.Embedded(
        visual=torch.nn.functional.normalize(torch.randn(900, 16, generator=random), dim=1).half(),
        audio=torch.nn.functional.normalize(torch.randn(900, 16, generator=random), dim=1).half(),
    )
    sizes = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    labels, done = labelling.first_labels(embedded, [sizes], seed=0, device=torch.device("cpu"))
    shares = torch.bincount(labels[:, 0], minlength=3) / 900
    assert torch.allclose(shares.double(), sizes, atol=0.02)
    assert done.alarms() == []


def test_blocks_give_the_same_labels_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of the blocks in which labels are made does not change them."""
    random = torch.Generator().manual_seed(1)
    embedded = labelling.Embedded(
        visual=torch.nn.functional.normalize(torch.randn(200, 8, generator=random), dim=1).half(),
        audio=torch.nn.functional.normalize(torch.randn(200, 8, generator=random), dim=1).half(),
    )
    sizes = labelling.wanted_sizes(SELFLABEL, seed=0)
    whole, _ = labelling.first_labels(embedded, sizes, seed=0, device=torch.device("cpu"))
    monkeypatch.setattr(labelling, "BLOCK_ROWS", 17)
    parts, _ = labelling.first_labels(embedded, sizes, seed=0, device=torch.device("cpu"))
    assert (whole == parts).double().mean() > 0.98  # sums of blocks differ in their last bits


def test_collapse_raises_alarms() -> None:
    """Few used clusters, low entropy and restless labels are each named; a healthy round is silent."""
    assert len(labelling.Round(used=0.5, entropy=0.3, change=0.9, size_error=0, agreement=0.5).alarms()) == 3
    assert labelling.Round(used=1, entropy=0.95, change=0.2, size_error=0, agreement=0.5).alarms() == []


def test_selflabelling_needs_correspondence_first(
    data: tuple[Pairs, Rehearsal | None], networks: Networks, tmp_path: Path
) -> None:
    """A checkpoint without a fusion network is refused with the command to run."""
    with pytest.raises(UsageError, match="visxp train avc"):
        run_selflabel(networks, data, tmp_path)


def test_positions_follow_the_hierarchy() -> None:
    """A sure second lies at its leaf; one that wavers between siblings lies nearer to the origin, but near both."""
    random = torch.Generator().manual_seed(0)
    kinds = torch.nn.functional.normalize(torch.randn(3, 16, generator=random), dim=1)
    members = kinds.repeat_interleave(3, dim=0) + 0.05 * torch.randn(9, 16, generator=random)
    leaves = place_leaves(torch.nn.functional.normalize(members, dim=1), radius=4.0, seed=0)
    assert torch.allclose(2 * torch.atanh(leaves.norm(dim=1)), torch.full((9,), 4.0), atol=1e-3)
    wavering = torch.zeros(3, 9)
    wavering[0, 0], wavering[1, [0, 1]], wavering[2, [0, 8]] = 1, 0.5, 0.5  # sure, among siblings, among strangers
    sure, siblings, strangers = place_seconds(wavering, leaves)
    assert torch.allclose(sure, leaves[0], atol=1e-5)
    assert strangers.norm() < siblings.norm() < sure.norm()

    def loss(point: torch.Tensor, wanted: torch.Tensor) -> float:
        tangent = torch.atanh(point.norm()) * point / point.norm()
        return float(position_loss(tangent[None], wanted[None], radius=4.0))

    assert loss(sure, leaves[0]) == pytest.approx(0, abs=1e-3)
    assert loss(leaves[1], leaves[0]) < loss(leaves[8], leaves[0])
    assert loss(leaves[8], leaves[0]) == pytest.approx(2, abs=0.5)  # by way of the middle of the ball


def test_positions_are_learned(data: tuple[Pairs, Rehearsal | None], networks: Networks, tmp_path: Path) -> None:
    """The loss of positions falls, the tree that was found is left in the run folder, and heads are required."""
    start = add_heads(networks, fusion_hidden=16, n_heads=2, n_clusters=5, cluster_hidden=16)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    run_hierarchy(start, data, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    rows = read_rows(tmp_path, "hierarchy")
    assert rows[1]["hierarchy/position"] < rows[0]["hierarchy/position"]
    found = json.loads((tmp_path / "hierarchy_tree.json").read_text())
    assert sorted(child for children in found["tree"].values() for child in children if child < 5) == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="visxp train selflabel"):
        run_hierarchy(add_heads(networks, fusion_hidden=16), data, tmp_path)


def test_commands_lead_from_checkpoint_to_checkpoint(
    corpus: tuple[Path, Path], networks: Networks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stage's command writes a checkpoint that loads with its heads; the first still loads without."""
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_to_json(recipe())))
    provenance = {"stages": ["warmstart"], "recipe": recipe_to_json(recipe())}
    save_checkpoint(tmp_path / "warm", networks, provenance=provenance, card="")
    previous = "warm"
    for stage in ("avc", "selflabel", "hierarchy"):
        arguments = ["train", stage, str(corpus[0]), "--cache", str(corpus[1]), "--from", str(tmp_path / previous)]
        arguments += ["--out", str(tmp_path / stage), "--run", str(tmp_path / "run")]
        assert main([*arguments, "--recipe", str(tmp_path / "recipe.json"), "--epochs", "1", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["checkpoint"] == load_checkpoint(tmp_path / stage).checkpoint_id
        previous = stage
    assert load_checkpoint(tmp_path / "warm").networks.fusion is None
    last = load_checkpoint(tmp_path / "hierarchy")
    assert last.networks.fusion is not None
    assert last.networks.clustering is not None
    assert last.provenance["stages"] == ["warmstart", "avc", "selflabel", "hierarchy"]
    assert "2 clusterings of 3 clusters" in (tmp_path / "selflabel" / "README.md").read_text()


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one(corpus: tuple[Path, Path], networks: Networks, tmp_path: Path) -> None:
    """Under `torchrun` with two CPU processes, a stage logs the same losses as in one process."""
    config = dataclasses.replace(AVC, batches_per_step=2, batch_size=6, freeze_norm=True)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe_to_json(dataclasses.replace(recipe(), avc=config))))
    save_checkpoint(tmp_path / "warm", networks, provenance={"stages": [], "recipe": {"seed": 0}}, card="")
    arguments = ["train", "avc", str(corpus[0]), "--cache", str(corpus[1]), "--from", str(tmp_path / "warm"), "--quiet"]
    arguments += ["--recipe", str(path), "--device", "cpu", "--threads", "1"]
    assert main([*arguments, "--out", str(tmp_path / "one"), "--run", str(tmp_path / "run_one")]) == 0
    where = ["--out", str(tmp_path / "two"), "--run", str(tmp_path / "run_two")]
    root = Path(__file__).parents[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    done = subprocess.run(
        [*torchrun, "visxp_search.cli", *arguments, *where],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run_one" / "avc.csv").open() as one, (tmp_path / "run_two" / "avc.csv").open() as two:
        for row_one, row_two in zip(csv.DictReader(one), csv.DictReader(two), strict=True):
            for name in AVC.loss_weights:
                assert float(row_two[name]) == pytest.approx(float(row_one[name]), rel=2e-3)
