"""The last seconds of a recorded episode as an mp4 file: the scene with the camera, TTC and actions below it.

Where the recording says what spoke for and against the decisions of its last seconds (see `evaluation.salient`), that
stands beside the camera's picture.
"""

import contextlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pygame

from envs.errors import UserError
from envs.files import replaced
from envs.render import FAINT_TEXT, PLATE, draw_frame, enlarge, write
from envs.scene import Scene, interpolate
from evaluation.overlay import draw_legend, overlay
from evaluation.replay import Replay
from evaluation.traces import SECONDS as PAST
from evaluation.traces import draw_traces

WIDTH, SCENE, TRACES = 960, 320, 170  # [pixel]
SALIENT = 288  # width of what stands beside the camera's picture [pixel]
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
    """How the video ends. Shape: (HEIGHT, WIDTH, 3), or WIDTH + SALIENT of a recording with shares, uint8."""
    return _picture(replay, replay.scene(len(replay) - 1))


def _picture(replay: Replay, scene: Scene) -> np.ndarray:
    frame = min(round(scene.time / replay.dt), len(replay) - 1)
    above, width = draw_frame(scene, WIDTH, SCENE, ZOOM), WIDTH
    if replay.shares is not None:
        above, width = np.concatenate([above, _draw_shares(replay, frame)], axis=1), WIDTH + SALIENT
    return np.concatenate([above, draw_traces(replay, frame, width, TRACES)])


def _draw_shares(replay: Replay, frame: int) -> np.ndarray:
    """What spoke for and against the decision under way, laid on its picture. Shape: (SCENE, SALIENT, 3), uint8."""
    step = replay.step(frame)
    shares, camera = replay.shares_at(step), replay.camera[step]
    surface = pygame.Surface((SALIENT, SCENE), 0, 32)
    surface.fill(PLATE)
    # As large as `draw_frame` shows the picture without it, and as high.
    image = enlarge(camera if shares is None else overlay(camera, shares), SALIENT - 16, SCENE - 100)
    surface.blit(image, (0, 14))
    pygame.draw.rect(surface, FAINT_TEXT, image.get_rect(topleft=(0, 14)).inflate(2, 2), 1)
    top, width = 28 + image.get_height(), image.get_width()
    if shares is None:
        write(surface, f"saliency: in the last {PAST:.0f} s", (0, top), 15, FAINT_TEXT)
    else:
        title = f"saliency of the decision ({replay.about['saliency']})"
        write(surface, title, (0, top), 13, FAINT_TEXT)
        draw_legend(surface, pygame.Rect(0, top + 24, width, 0), 13)
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


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
