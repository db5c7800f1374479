"""Pass 1: read all packets of a file without decoding any, to know what is there and when.

A part of `decode.py`.
"""

from __future__ import annotations  # av.packet.Packet is generic for type checkers only

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.packet import Packet

from visxp_search.decode_file import (
    MICROSECONDS,
    Damage,
    DecodeLimits,
    MediaStream,
    check_file,
    choose_streams,
    find_zero,
    open_media,
    read_packets,
    start_of,
    ticks_per_frame,
    time_base_of,
)
from visxp_search.errors import DecodeError
from visxp_search.frame_plan import NO_FRAME, PacketTable

FREE_PACKETS = 1000
"""So many packets a file of any size may have; beyond it every one needs a byte of the file, or its table is forged."""
MIN_SECONDS = 0.001
"""Length of a file in which no packet has a duration."""
MAX_TICK = 2**60
"""Time stamps beyond this are forged, and would overflow in further arithmetic."""


@dataclass(frozen=True)
class Scan:
    """What demuxing told.

    Attributes:
        table: the packets of the picture stream; None if there is no such stream.
        n_untimed: packets of pictures that are not in the table, because they have no usable time stamp.
        start_seconds: the container's start.
        end_seconds: the end of the last packet, counted from the container's start.
        is_whole: False where scanning stopped early.
    """

    table: PacketTable | None
    n_untimed: int
    start_seconds: float
    end_seconds: float
    is_whole: bool


class Track:
    """One stream as pass 1 sees it; ticks count from the container's start.

    Attributes:
        n_packets: all of them.
        n_untimed: those without a usable time stamp.
        last: greatest time stamp so far.
        end: when the packet of that time stamp is over.
        dts: when the packet read last is decoded.
    """

    def __init__(self, container: InputContainer, stream: MediaStream) -> None:
        self.time_base = time_base_of(stream)
        self.zero = find_zero(container, stream)
        self.default_duration = 0
        self.n_packets = 0
        self.n_untimed = 0
        self.last = NO_FRAME
        self.end = 0
        self.dts = NO_FRAME
        self.pts, self.is_keyframe, self.is_shown = array("q"), array("b"), array("b")

    def add(self, packet: Packet[Any]) -> None:
        """Take note of when a packet is."""
        self.n_packets += 1
        duration = packet.duration or self.default_duration
        tick = self.end if packet.pts is None else packet.pts - self.zero
        if packet.pts is None or abs(tick) > MAX_TICK:
            self.n_untimed += 1
            self.end += duration
            return
        if packet.dts is not None:
            self.dts = packet.dts - self.zero
        if tick > self.last and not packet.is_discard:
            self.last = tick
            self.end = tick + duration

    def remember(self, packet: Packet[Any]) -> None:
        """Keep what `make_table` needs of a packet of pictures."""
        if packet.pts is not None and abs(packet.pts - self.zero) <= MAX_TICK:
            self.pts.append(packet.pts - self.zero)
            self.is_keyframe.append(packet.is_keyframe)
            self.is_shown.append(not packet.is_discard)

    def make_table(self) -> PacketTable:
        """The packets remembered."""
        return PacketTable(
            pts=np.array(self.pts, dtype=np.int64),
            is_keyframe=np.array(self.is_keyframe, dtype=np.bool_),
            is_shown=np.array(self.is_shown, dtype=np.bool_),
            time_base=self.time_base,
            display_end=self.end,
        )


def scan_packets(path: Path, limits: DecodeLimits, *, stop_second: int | None, damage: Damage) -> Scan:
    """Read every packet of a file, or those up to `stop_second`, without decoding any."""
    n_bytes = check_file(path)
    is_whole = True
    with open_media(path, limits) as container:
        video, audio = choose_streams(container, path)
        streams: list[MediaStream] = [stream for stream in (video, audio) if stream is not None]
        tracks = {stream.index: Track(container, stream) for stream in streams}
        pictures = tracks[video.index] if video else None
        if video is not None and pictures is not None:
            pictures.default_duration = ticks_per_frame(video)
        start_seconds = start_of(container) / MICROSECONDS
        for packet in read_packets(container, *streams, limits=limits, damage=damage):
            track = tracks[packet.stream_index]
            track.add(packet)
            if track is pictures:
                track.remember(packet)
            if track.n_packets > FREE_PACKETS + n_bytes:
                raise DecodeError(
                    f"{path}: more than {track.n_packets} packets in {n_bytes} bytes; allowed is one for every byte; "
                    "its index is forged or damaged, copy it into a new container"
                )
            # What is decoded later is also shown later, so nothing of the seconds asked for can follow.
            if stop_second is not None and all(t.dts * t.time_base > stop_second for t in tracks.values()):
                is_whole = False
                break
    if all(track.n_packets == 0 for track in tracks.values()):
        raise DecodeError(f"{path}: its header promises picture or sound, but there is none; fetch the file again")
    end = max(MIN_SECONDS, *(float(track.end * track.time_base) for track in tracks.values()))
    limits.check_seconds(end, path=path, n_bytes=n_bytes)
    return Scan(
        table=pictures.make_table() if pictures else None,
        n_untimed=pictures.n_untimed if pictures else 0,
        start_seconds=start_seconds,
        end_seconds=end,
        is_whole=is_whole,
    )
