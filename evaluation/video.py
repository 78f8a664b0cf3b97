"""The last seconds of a recorded episode as an mp4 file: the scene with the camera, TTC and actions below it."""

import contextlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from envs.errors import UserError
from envs.files import replaced
from envs.render import draw_frame
from envs.scene import Scene, interpolate
from evaluation.replay import Replay
from evaluation.traces import draw_traces

WIDTH, SCENE, TRACES = 960, 320, 170  # [pixel]
HEIGHT = SCENE + TRACES  # even, as H.264 needs it, like the width
ZOOM = 8.0  # [pixel/m]
SECONDS = 10.0  # of the episode's end
FREEZE = 1.5  # the last picture stays for this long [s]
MINIMUM_FPS = 15


def moments(replay: Replay) -> tuple[int, list[Scene]]:
    """The end of an episode as scenes to be drawn, and how many make a second. A coarse simulation is interpolated."""
    frequency = round(1.0 / replay.dt)
    between = -(-MINIMUM_FPS // frequency)
    last = len(replay) - 1
    recorded = [replay.scene(frame) for frame in range(max(0, last - round(SECONDS * frequency)), last + 1)]
    smooth = [
        interpolate(a, b, k / between) for a, b in zip(recorded, recorded[1:], strict=False) for k in range(between)
    ]
    return frequency * between, [*smooth, recorded[-1]]


def write_video(replay: Replay, path: Path) -> None:
    """Draw the end of an episode and write it. Errors: those of `encode`."""
    fps, scenes = moments(replay)

    def pictures() -> Iterable[np.ndarray]:
        for scene in scenes:
            picture = _picture(replay, scene)
            yield picture
        for _ in range(round(FREEZE * fps)):
            yield picture

    encode(pictures(), fps, path)


def last_picture(replay: Replay) -> np.ndarray:
    """How the video ends. Shape: (HEIGHT, WIDTH, 3), uint8."""
    return _picture(replay, replay.scene(len(replay) - 1))


def _picture(replay: Replay, scene: Scene) -> np.ndarray:
    frame = min(round(scene.time / replay.dt), len(replay) - 1)
    return np.concatenate([draw_frame(scene, WIDTH, SCENE, ZOOM), draw_traces(replay, frame, WIDTH, TRACES)])


def encode(pictures: Iterable[np.ndarray], fps: float, path: Path) -> None:
    """Write pictures as H.264 in an mp4 file, atomically.

    Args:
        pictures: at least one; uint8 [height, width, 3], all of one size, with even sides.
        fps: pictures a second.
        path: of the file.

    Raises:
        UserError: ffmpeg could not write it (a full disk, say); a file that was there is as it was.
    """
    pictures = iter(pictures)
    first = next(pictures)
    height, width = first.shape[:2]
    with replaced(path) as beside:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
        command += ["-crf", "27", "-preset", "veryfast", "-movflags", "+faststart", "-f", "mp4", str(beside)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            # A broken pipe only says that ffmpeg has gone; its own last words say why.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(first.tobytes())
                for picture in pictures:
                    process.stdin.write(picture.tobytes())
            _, said = process.communicate()
        if process.returncode:
            last_line = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise UserError(f"cannot write the video {path}: ffmpeg says '{last_line}' ({process.returncode})")
