"""The frames of short videos as images: .mp4 files, or folders of frames.

Shape suffixes: V videos, N frames of all, H W.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.inputs.opening import read_rgb
from ...data.inputs.walk import EXTENSIONS
from ...errors import RunError, UsageError
from ..prepare import in_threads
from ..splits import Files, Labels

KEPT = 64  # decoded videos; threads read the frames of neighbouring ones
LOCKS = 32


class Videos:
    """The frames of videos, one after the other, as a sequence of images.

    root: folder of the videos. names: of the .mp4 files or folders of frames, relative to it. frames: of each, names
    of the files for a folder, else as many empty names as it has frames. places_N2: the video and the frame of each
    image, int64 [N, 2].
    """

    def __init__(self, root: Path, names: Sequence[str], frames: Sequence[Sequence[str]]) -> None:
        self.root, self.names, self.frames = root, names, frames
        counts = [len(found) for found in frames]
        frame_N = np.concatenate([np.arange(count) for count in counts])
        self.places_N2: Labels = np.stack([np.repeat(np.arange(len(counts)), counts), frame_N], 1).astype(np.int64)
        self._decoded: OrderedDict[int, list[Image.Image]] = OrderedDict()
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._keeping = threading.Lock()

    def __len__(self) -> int:
        return len(self.places_N2)

    def open(self, index: int) -> Image.Image:
        """A frame as 8-bit RGB; RunError with the name of its video if it cannot be read."""
        video, frame = self.places_N2[index].tolist()
        name = self.frames[video][frame]
        if name:
            return read_rgb(self.root / self.names[video] / name)
        with self._locks[video % LOCKS]:  # so that no two threads decode the same video
            found = self._decoded.get(video)
            if found is None:
                found = _decode(self.root / self.names[video], len(self.frames[video]))
                with self._keeping:
                    self._decoded[video] = found
                    if len(self._decoded) > KEPT:
                        self._decoded.popitem(last=False)
        return found[frame]

    def digest(self, memo: Path | None) -> str:
        """Hash of the content of all videos in order, see `splits.Images`."""
        files = [f"{v}/{f}" if f else v for v, fs in zip(self.names, self.frames, strict=True) for f in fs]
        return Files(self.root, list(dict.fromkeys(files))).digest(memo)


def list_videos(root: Path, classes: Sequence[str]) -> Videos:
    """The videos in the class folders of `root`, sorted.

    Raises UsageError for a folder without videos, a video of fewer than two frames, and without a decoder for .mp4.
    """
    folders = [root / kind for kind in classes if (root / kind).is_dir()]
    names = [f"{folder.name}/{path.name}" for folder in folders for path in sorted(folder.iterdir())]
    names = [name for name in names if name.lower().endswith(".mp4") or (root / name).is_dir()]
    if not names:
        raise UsageError(f"{root} holds no videos: expected .mp4 files, or folders of frames, in folders of classes")
    if any((root / name).is_file() for name in names):
        _cv2(root)
    frames = list(in_threads(lambda i: _frames(root / names[i]), range(len(names))))
    short = [i for i, found in enumerate(frames) if len(found) < 2]
    if short:
        raise UsageError(
            f"{root / names[short[0]]} has {len(frames[short[0]])} frames, expected at least two: copy it again, or "
            f"remove it"
        )
    return Videos(root, names, frames)


def _cv2(root: Path) -> Any:
    try:
        import cv2
    except Exception as error:
        raise UsageError(
            f"{root} holds .mp4 videos, which OpenCV decodes ({error}): pip install opencv-python-headless, or put a "
            f"folder of frames (0.png, 1.png, ...) in place of each"
        ) from None
    return cv2


def _frames(path: Path) -> list[str]:
    """Names of the frames of a folder in the order of their numbers; for a video, as many empty names as frames."""
    if path.is_dir():
        found = [entry.name for entry in path.iterdir() if entry.suffix.lower() in EXTENSIONS]
        return sorted(found, key=lambda name: (_number(name), name))
    cv2 = _cv2(path.parent)
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    return [""] * max(0, count)


def _number(name: str) -> int:
    digits = "".join(c for c in Path(name).stem if c in "0123456789")
    return int(digits) if digits else 0


def _decode(path: Path, count: int) -> list[Image.Image]:
    """All frames of a video as RGB images; RunError if there are not `count`."""
    cv2 = _cv2(path.parent)
    video = cv2.VideoCapture(str(path))
    found = []
    while True:
        read, frame = video.read()
        if not read:
            break
        found.append(Image.fromarray(np.ascontiguousarray(frame[..., ::-1])))
    video.release()
    if len(found) != count:
        raise RunError(f"{path} has {len(found)} frames that can be decoded, and says {count}: copy it again")
    return found
