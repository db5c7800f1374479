"""The direction of imports (STYLE section 1), read from the source with `ast`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("visxp_search", "training", "indexer", "webui")

CORE = {"errors", "clips", "torchaudio_pure", "spectrogram", "encoders", "moments"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "clips": {"errors"},
    "torchaudio_pure": set(),
    "spectrogram": {"errors", "torchaudio_pure"},
    "encoders": {"errors"},
    "heads": set(),
    "moments": {"errors"},
    "frame_plan": {"errors"},
    "sound_line": {"errors"},
    "render": {"errors"},
    "store": {"clips", "errors", "store_edge", "store_server"},
    "store_json": {"store", "errors"},
    "store_checks": {"store"},
    "store_collection": {"store", "store_json", "store_checks", "errors"},
    "store_edge": {"store", "store_collection", "store_edge_files", "store_edge_shard", "errors"},
    "store_edge_files": {"store", "store_json", "errors"},
    "leaving": set(),
    "mapped_pages": set(),
    "store_edge_shard": {"store", "store_collection", "store_edge_files", "leaving", "mapped_pages", "errors"},
    "store_edge_migrate": {"store", "store_edge", "store_edge_files", "errors"},
    "store_server": {"store", "store_json", "store_collection", "store_retries", "errors"},
    "store_retries": set(),
    "store_admin": {"store", "store_json", "store_collection", "store_server", "errors"},
    "checkpoint_config": {"errors"},
    "checkpoint": {"checkpoint_config", "encoders", "heads", "spectrogram", "errors"},
    "embed": {"clips", "errors", "l3net", "l3net_deferred"},
    "l3net": {"embed", "checkpoint", "checkpoint_config", "clips", "encoders", "errors"},
    "l3net_deferred": {"embed", "checkpoint_config", "clips", "l3net"},
}
"""Modules of visxp_search whose imports from visxp_search are listed in full; `decode*` are checked apart."""

ONLY_IN = {
    "av": {"visxp_search/render.py"},
    "qdrant_client": {f"visxp_search/store_{name}.py" for name in ("server", "retries", "admin")},
    "qdrant_edge": {"visxp_search/store_edge_shard.py"},
}
"""Library -> the files that may import it; PyAV is also for decode*.py."""


def _imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _own(names: set[str], package: str) -> set[str]:
    """First part below `package` of the imported names."""
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_core_modules_import_only_what_is_listed(module: str) -> None:
    """A core module imports no module of ours besides those listed for it."""
    modules = {path.stem for path in (ROOT / "visxp_search").iterdir()}
    found = _own(_imports(ROOT / "visxp_search" / f"{module}.py"), "visxp_search") & modules
    assert found <= MAY_IMPORT[module]


def test_decoding_stands_on_clips_alone() -> None:
    """Files that decode import no part of ours but clips, errors and their own planning."""
    allowed = {"clips", "errors", "frame_plan", "sound_line"}
    files = sorted((ROOT / "visxp_search").glob("decode*.py"))
    assert files
    modules = {path.stem for path in (ROOT / "visxp_search").iterdir()}
    for path in files:
        found = {name for name in _own(_imports(path), "visxp_search") & modules if not name.startswith("decode")}
        assert found <= allowed, path


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("indexer", {"visxp_search.search", "visxp_search.cli", "visxp_search.commands", "training", "webui"}),
        (
            "training",
            {
                "visxp_search.store",
                "visxp_search.search",
                "visxp_search.cli",
                "visxp_search.commands",
                "indexer",
                "webui",
            },
        ),
        ("webui", {"torch", "qdrant_client", "qdrant_edge", "training", "indexer", "visxp_search.cli"}),
    ],
)
def test_packages_keep_their_distance(package: str, forbidden: set[str]) -> None:
    """No file of a package imports what its row of the table forbids."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in _imports(path):
            assert not any(name == bad or name.startswith(f"{bad}.") for bad in forbidden), (path, name)


def test_the_library_does_not_know_who_uses_it() -> None:
    """Below the API no module of visxp_search imports indexer, training or webui."""
    for path in sorted((ROOT / "visxp_search").rglob("*.py")):
        if path.name in ("api.py", "cli.py") or path.parent.name == "commands":
            continue
        assert not any(name.split(".")[0] in ("indexer", "training", "webui") for name in _runtime_imports(path)), path


def _runtime_imports(path: Path) -> set[str]:
    """As `_imports`, without those that only a type checker sees."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_libraries_have_one_owner(library: str) -> None:
    """A library that is wrapped is imported by its wrapper alone."""
    for path in _sources():
        name = str(path.relative_to(ROOT))
        if name in ONLY_IN[library] or (library == "av" and path.stem.startswith("decode")):
            continue
        assert not any(found.split(".")[0] == library for found in _imports(path)), name


@pytest.mark.parametrize("module", ["visxp_search", "visxp_search.cli"])
def test_importing_is_instant(module: str) -> None:
    """The package and the command line load neither torch nor Qdrant nor Gradio nor PyAV."""
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "gradio", "qdrant_client", "qdrant_edge", "av", "moviepy", "torchaudio"} & set(loaded)


def test_help_is_quick() -> None:
    """`visxp --help` takes less than 0.4 s of processor time."""
    code = (
        "import resource, sys\nfrom visxp_search.cli import main\nmain(['--help'])\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(usage.ru_utime + usage.ru_stime, file=sys.stderr)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert "Find similar moments" in runs[0].stdout
    assert min(float(run.stderr) for run in runs) < 0.4
