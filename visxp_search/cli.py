"""The command line `visxp`: puts the groups of commands together and turns errors into exit codes.

Each command (in `visxp_search.commands`) parses, calls one function and prints. Results go to stdout, everything else
to stderr.
"""

import json
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, NoReturn

import typer

from visxp_search.commands import clusters, index, search, train
from visxp_search.commands.demo import demo
from visxp_search.commands.doctor import doctor
from visxp_search.commands.embed import embed
from visxp_search.commands.export import export
from visxp_search.commands.shared import EXIT_DONE, EXIT_INTERRUPTED, EXIT_UNUSABLE, EXIT_WRONG_USE, group
from visxp_search.commands.ui import ui
from visxp_search.errors import UsageError, VisxpError
from visxp_search.leaving import expect_to_leave, leave

app = group("Find similar moments in video archives, by picture and by sound.")
app.add_typer(index.app, name="index")
app.add_typer(search.app, name="search")
app.add_typer(train.app, name="train")
app.add_typer(clusters.app, name="clusters")
app.command("embed")(embed)
app.command("export")(export)
app.command("ui")(ui)
app.command("demo")(demo)
app.command("doctor")(doctor)

EXTRA_OF = {
    **dict.fromkeys(("fastapi", "gradio", "starlette", "uvicorn"), "web"),
    **dict.fromkeys(("matplotlib", "sklearn", "tensorboard", "webdataset"), "train"),
    "ray": "ray",
}
"""Library -> the extra of this project that brings it; the rest of the program does without."""


VALUE_OF_BARE = {"--ray": "auto"}
"""Options whose value may be left out -> what it is then, which Typer cannot express."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0 done, 1 done with failures, 2 wrong use, 3 unusable input."""
    arguments = _with_values(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(arguments, prog_name="visxp", standalone_mode=False)
    except VisxpError as exc:
        _print_error(type(exc).__name__, str(exc), as_json="--json" in arguments)
        return EXIT_WRONG_USE if isinstance(exc, UsageError) else EXIT_UNUSABLE
    except typer.TyperException as exc:
        message = exc.format_message()
        if message:
            _print_error("UsageError", message, as_json="--json" in arguments)
        return EXIT_WRONG_USE
    except ModuleNotFoundError as exc:
        library = (exc.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        extra = EXTRA_OF[library]
        advice = (
            f"this command needs {library}, which the extra {extra!r} brings; "
            f"in the project's folder: pip install -c requirements.lock -e '.[{extra}]'"
        )
        _print_error("UsageError", advice, as_json="--json" in arguments)
        return EXIT_UNUSABLE
    except typer.Abort:
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        print("interrupted; nothing is lost, run the same command again to go on", file=sys.stderr)
    return code if isinstance(code, int) else EXIT_DONE


def run() -> NoReturn:
    """The program `visxp`: run its command line and leave."""
    expect_to_leave()
    leave(main())


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find similar moments in video archives, by picture and by sound.

    Begin with `visxp demo`, or with your own files:

    `visxp index add ~/Videos` then `visxp search clip some.mp4 --start 12 --end 18`
    """
    if version:
        from visxp_search import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


def _with_values(arguments: Sequence[str]) -> list[str]:
    """The arguments with a value after each option that may stand without one: before another option, or last."""
    complete: list[str] = []
    for word, following in zip_longest(arguments, arguments[1:], fillvalue="-"):
        complete.append(word)
        if word in VALUE_OF_BARE and following.startswith("-"):
            complete.append(VALUE_OF_BARE[word])
    return complete


def _print_error(kind: str, message: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": {"type": kind, "message": message}}), file=sys.stderr)
    else:
        print(f"error: {message}" if not message.startswith("Usage") else message, file=sys.stderr)


if __name__ == "__main__":
    run()
