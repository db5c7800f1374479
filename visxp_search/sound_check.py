"""Compares the sound of a query with that of the moments it may be the same recording as, from their files.

Embeddings tell what sounds alike; whether it is one recording is told by the sound itself (`visxp_search.sound_step`),
which is cheap to read for the few moments that lead. Files that are not there are not compared, and moments say so.
"""

import logging
from pathlib import Path

from visxp_search.decode import decode_waveform
from visxp_search.errors import DecodeError
from visxp_search.queries import Query
from visxp_search.sound_step import STEPS_PER_SECOND, SoundStep, band_levels, sound_step
from visxp_search.store import Store

log = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 8000
MARGIN_SECONDS = 1.5
"""Read on both sides of a moment."""
MOST_COMPARED = 20
"""Moments of one search that are compared with their files."""


class SoundCheck:
    """The sound of one query beside those of moments.

    Args:
        store: tells where the files lie.
        query: compares nothing unless it has `sound_levels`.
    """

    def __init__(self, store: Store, query: Query) -> None:
        self.store = store
        self.query = query
        self._compared: dict[tuple[str, float, float], tuple[SoundStep | None, str]] = {}

    def compare(
        self, video_id: str, *, start: float, end: float, asked: tuple[float, float]
    ) -> tuple[SoundStep | None, str]:
        """How the sound of `[start, end)` of a video runs with `asked` seconds of the query.

        Returns:
            The best fit, with the time of the video at which `asked` begins, or None where there are not two sounds to
            compare; and why a file could not be read, empty if it could.
        """
        key = video_id, start, end
        if key not in self._compared:
            if self.query.sound_levels is None or len(self._compared) >= MOST_COMPARED:
                return None, ""
            self._compared[key] = self._compare(video_id, start, end, asked)
        return self._compared[key]

    def _compare(
        self, video_id: str, start: float, end: float, asked: tuple[float, float]
    ) -> tuple[SoundStep | None, str]:
        record = self.store.video(video_id)
        paths = record.paths if record is not None else ()
        path = next((path for path in paths if Path(path).is_file()), None)
        if path is None:
            return None, "sound not compared, as the file is not where it was indexed"
        begin = max(0.0, start - MARGIN_SECONDS)
        try:
            waveform = decode_waveform(
                path, sample_rate_hz=SAMPLE_RATE_HZ, start_seconds=begin, stop_seconds=end + MARGIN_SECONDS, seek=True
            )
        except DecodeError as exc:
            log.info("the sound of a moment is not compared: %s", exc)
            return None, "sound not compared, as the file cannot be read"
        assert self.query.sound_levels is not None
        first, last = (round(max(0.0, seconds) * STEPS_PER_SECOND) for seconds in asked)
        step = sound_step(
            self.query.sound_levels[first:last], band_levels(waveform, sample_rate_hz=SAMPLE_RATE_HZ), begins_at=begin
        )
        return step, ""
