"""`visxp index migrate`: an index of an older release."""

from pathlib import Path

from visxp_search.commands.shared import IndexOption, JsonOption, QuietOption, default_index, print_json
from visxp_search.errors import UsageError


def index_migrate(index: IndexOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Bring an index that an older release made to the present schema; what it was is kept as a backup.

    Such an index goes on to work until then, unless a message says otherwise. Interrupted, the same command goes on.

    Example: `visxp index migrate --index tapes.index`
    """
    from visxp_search.store import is_url
    from visxp_search.store_edge_migrate import migrate_edge_index
    from visxp_search.terminal import say

    location = index or default_index()
    if is_url(location):
        raise UsageError(f"{location} is on a server, where no schema differs from this one; there is nothing to do")
    done = migrate_edge_index(Path(location))
    backups = [str(backup) for backup in done.backups]
    if as_json:
        print_json({"index": location, "before": done.before, "schema": done.after, "backups": backups})
    elif quiet:
        return
    elif done.before == done.after and not backups:
        say(f"{location} has schema version {done.after} already")
    else:
        kept = f"; what it was is kept in {', '.join(backups)}: remove that when all is well" if backups else ""
        say(f"{location} has schema version {done.after} now{kept}")
