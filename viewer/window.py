"""The window: keys and mouse, and the main loop."""

import io
import os
import time
from pathlib import Path

import pygame

from envs.errors import UserError
from envs.files import write
from envs.render import FAINT_TEXT, METRES_ACROSS, TEXT
from envs.vehicle_shapes import CRASH
from viewer.panels import WARNING, progress_box
from viewer.recording import FPS, Recorder
from viewer.session import Live
from viewer.stage import SIZE, Notes, Stage

RATE = 60  # pictures a second
LONGEST = 0.1  # [s] of real time that one picture stands for; a machine that is slower shows slow motion
SPEEDS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)
ZOOM_STEP = 1.2
MESSAGE_SECONDS = 3.0
SMALLEST = 64  # side of a window that is still drawn into [pixel]
FOLDER = Path("runs/viewer")  # for what is saved
STEERING = {pygame.K_LEFT: "LANE_LEFT", pygame.K_RIGHT: "LANE_RIGHT", pygame.K_UP: "FASTER", pygame.K_DOWN: "SLOWER"}
# What an arrow held down asks of throttle and steering.
PEDALS = {pygame.K_LEFT: (0, -1), pygame.K_RIGHT: (0, 1), pygame.K_UP: (1, 0), pygame.K_DOWN: (-1, 0)}


class Window:
    """A window on a stage.

    Args:
        stage: what is shown; it is closed with the window.

    Attributes:
        paused: whether time stands still.
        speed: simulated seconds a second.
        running: False after a wish to quit.

    Raises:
        UserError: there is no display.
    """

    def __init__(self, stage: Stage):
        self.stage, self.session = stage, stage.session
        self.paused, self.running, self.keys = False, True, False
        self._speed = SPEEDS.index(1)
        self._recorder: Recorder | None = None
        self._unrecorded = 0.0
        self._arrows: set[int] = set()  # those that are held down
        self._message, self._message_until = "", 0.0
        try:
            pygame.display.init()
            if pygame.display.get_driver() == "offscreen" and not os.environ.get("SDL_VIDEODRIVER"):
                raise pygame.error("there is no display")  # SDL's last resort, which nobody would see
            self._screen = pygame.display.set_mode(SIZE, pygame.RESIZABLE)
        except pygame.error as error:
            raise UserError(f"no window can be opened ({error}); --record FILE.mp4 needs none") from None
        pygame.display.set_caption("lanewise")
        self._symbols = {
            ".": lambda: self._step(self.session.frames_per_step, True),
            ",": lambda: self._step(self.session.frames_per_step, False),
            ">": lambda: self._step(1, True),
            "<": lambda: self._step(1, False),
            "[": lambda: self._change_speed(-1),
            "]": lambda: self._change_speed(1),
            "+": lambda: self.stage.zoom(1 / ZOOM_STEP),
            "=": lambda: self.stage.zoom(1 / ZOOM_STEP),
            "-": lambda: self.stage.zoom(ZOOM_STEP),
            "0": lambda: self.stage.zoom(METRES_ACROSS / self.stage.metres),
            "?": self._toggle_keys,
        }
        self._keys = {
            pygame.K_SPACE: self._toggle_pause,
            pygame.K_PAGEUP: lambda: self._change_speed(1),
            pygame.K_PAGEDOWN: lambda: self._change_speed(-1),
            pygame.K_r: self.session.restart,
            pygame.K_n: self._next_world,
            pygame.K_w: self._toggle_wheel,
            pygame.K_c: self.stage.next_camera,
            pygame.K_e: self._next_saliency,
            pygame.K_u: self._toggle_familiarity,
            pygame.K_v: self._toggle_recording,
            pygame.K_s: self._save_screenshot,
            pygame.K_f: pygame.display.toggle_fullscreen,
            pygame.K_F11: pygame.display.toggle_fullscreen,
            pygame.K_h: self._toggle_keys,
            pygame.K_F1: self._toggle_keys,
            pygame.K_q: self._quit,
            pygame.K_ESCAPE: self._quit,
        }

    @property
    def speed(self) -> float:
        """Simulated seconds a second."""
        return SPEEDS[self._speed]

    def run(self) -> None:
        """Show the session until somebody quits."""
        clock = pygame.time.Clock()
        try:
            while self.running:
                self.frame(min(clock.tick(RATE) / 1000, LONGEST))
        finally:
            self._stop_recording()
            self.stage.close()
            pygame.display.quit()

    def frame(self, seconds: float) -> None:
        """Take in what was pressed, let time pass, and draw.

        Args:
            seconds: real time since the last picture [s].
        """
        for event in pygame.event.get():
            self.handle(event)
        if not self.paused:
            self.session.advance(seconds * self.speed)
        self._screen = pygame.display.get_surface()
        if min(self._screen.get_size()) < SMALLEST:
            return
        picture = self.stage.draw(self._screen.get_size(), self._notes())
        self._record(picture, seconds)
        self._screen.blit(picture, (0, 0))
        pygame.display.flip()

    def _notes(self) -> Notes:
        chips = []
        if self.paused:
            chips.append(("paused", WARNING))
        if self.speed != 1:
            chips.append((f"{self.speed:g} x", TEXT))
        if self._recorder:
            chips.append((f"recording {self._recorder.pictures / FPS:.0f} s", CRASH))
        if not self.keys:
            chips.append(("H: keys", FAINT_TEXT))
        message = self._message if time.monotonic() < self._message_until else ""
        return Notes(chips, message, self.keys)

    # --- what was pressed -----------------------------------------------------------------------------------------

    def handle(self, event: pygame.event.Event) -> None:
        """Do what an event asks for."""
        if event.type == pygame.QUIT:
            self._quit()
        elif event.type == pygame.MOUSEWHEEL:
            self.stage.zoom(ZOOM_STEP**-event.y)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._seek(event.pos)
        elif event.type == pygame.MOUSEMOTION and event.buttons[0]:
            self._seek(event.pos)
        elif event.type == pygame.KEYDOWN and event.key in STEERING:
            self._arrows.add(event.key)
            self._steer(event.key)
        elif event.type == pygame.KEYUP and event.key in STEERING:
            self._arrows.discard(event.key)
            self._hold()
        elif event.type == pygame.KEYDOWN:
            action = self._symbols.get(event.unicode) or self._keys.get(event.key)
            if action:
                action()

    def _quit(self) -> None:
        self.running = False

    def _toggle_pause(self) -> None:
        self.paused = not self.paused

    def _toggle_keys(self) -> None:
        self.keys = not self.keys

    def _step(self, unit: int, forward: bool) -> None:
        self.paused = True
        self.session.step(unit, forward)

    def _change_speed(self, steps: int) -> None:
        self._speed = min(max(self._speed + steps, 0), len(SPEEDS) - 1)

    def _next_world(self) -> None:
        if self.session.recorded:
            self._say("a recording has one world")
        self.session.next_world()

    def _next_saliency(self) -> None:
        try:
            self.stage.next_saliency()
        except UserError as error:
            self._say(str(error))
        else:
            self._say(f"saliency: {self.stage.method or 'none'}")

    def _toggle_familiarity(self) -> None:
        try:
            self.stage.show_familiarity(not self.stage.familiarity)
        except UserError as error:
            self._say(str(error))

    def _toggle_wheel(self) -> None:
        session = self.session
        if not isinstance(session, Live):
            self._say("nobody can steer a recording")
        elif session.policy is None:
            self._say("there is no policy to give the wheel to")
        elif session.worlds.ego == "idm":
            self._say("the simulation drives this ego; start with --policy human to drive yourself")
        else:
            session.take_wheel(not session.human)
            self._say("arrow keys steer" if session.human else f"{session.policy.name} drives")

    def _steer(self, key: int) -> None:
        session = self.session
        if not isinstance(session, Live):
            if key in (pygame.K_LEFT, pygame.K_RIGHT):
                seconds = 1.0 if key == pygame.K_RIGHT else -1.0
                session.seek((session.position + seconds / session.dt) / session.last)
        elif not session.human:
            self._say("press W to take the wheel")
        elif not session.action_names:
            self._hold()
        elif STEERING[key] in session.action_names:
            session.wish = session.action_names.index(STEERING[key])
        else:
            self._say("this driver can only go faster or slower")

    def _hold(self) -> None:
        """Tell the session which arrows are held down."""
        if isinstance(self.session, Live):
            pulls = [PEDALS[key] for key in self._arrows]
            self.session.held = (float(sum(a for a, _ in pulls)), float(sum(b for _, b in pulls)))

    def _seek(self, at: tuple[int, int]) -> None:
        box = progress_box(self.stage.scene_size(self._screen.get_size()))
        if self.session.recorded and box.collidepoint(at):
            self.session.seek((at[0] - box.left) / box.width)

    # --- what is saved --------------------------------------------------------------------------------------------

    def _say(self, message: str) -> None:
        self._message, self._message_until = message, time.monotonic() + MESSAGE_SECONDS

    def _path(self, suffix: str) -> Path:
        FOLDER.mkdir(parents=True, exist_ok=True)
        return FOLDER / f"{self.session.scenario}-{time.strftime('%Y%m%d-%H%M%S')}{suffix}"

    def _save_screenshot(self) -> None:
        file = io.BytesIO()
        pygame.image.save(self.stage.draw(self._screen.get_size()), file, "picture.png")
        try:
            path = self._path(".png")
            write(path, file.getvalue())
        except OSError as error:
            self._say(f"cannot save a screenshot: {error.strerror}")
        else:
            self._say(f"saved {path}")

    def _toggle_recording(self) -> None:
        if self._recorder:
            self._stop_recording()
            return
        try:
            path = self._path(".mp4")
        except OSError as error:
            self._say(f"cannot record: {error.strerror}")
        else:
            self._recorder = Recorder(path, self.stage.draw(self._screen.get_size()))
            self._unrecorded = 0.0

    def _record(self, picture: pygame.Surface, seconds: float) -> None:
        """Add a picture to the recording as often as real time asks for."""
        if self._recorder and picture.get_size() != self._recorder.size:
            self._stop_recording()
        if not self._recorder:
            return
        self._unrecorded += seconds * FPS
        while self._unrecorded >= 1:
            self._recorder.add(picture)
            self._unrecorded -= 1

    def _stop_recording(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder:
            try:
                recorder.close()
            except (UserError, OSError) as error:
                self._say(str(error))
            else:
                self._say(f"saved {recorder.path}")
