"""The pages in a real browser: they fit a phone and a desktop, and nothing goes wrong in them."""

import json
import re
import shutil
import subprocess

import pytest

from envs.errors import exit_on_user_error
from evaluation import __main__ as command
from evaluation import compare, video

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")

# The page in a frame of the wanted width, since a window cannot be as narrow as a phone; and what was found in it.
WRAPPER = """<!doctype html><meta charset="utf-8"><body><iframe id="frame" src="{page}"
style="width: {width}px; height: 800px; border: 0"></iframe><pre id="found"></pre><script>
const frame = document.getElementById("frame");
addEventListener("load", () => {{
  const inside = frame.contentDocument, root = inside.documentElement;
  const boxed = element => element.parentElement.closest(".scroll, svg");
  const wide = [...inside.body.querySelectorAll("*")].filter(
    element => !boxed(element) && element.getBoundingClientRect().right > root.clientWidth + 1);
  frame.contentWindow.scrollTo(500, 0);
  document.getElementById("found").textContent = JSON.stringify({{
    scrolled: frame.contentWindow.scrollX, scroll_width: root.scrollWidth, width: root.clientWidth,
    wide: wide.map(element => element.tagName + "." + element.className),
    background: getComputedStyle(inside.body).backgroundColor, ink: getComputedStyle(inside.body).color,
    videos: [...inside.querySelectorAll("video")].map(element => element.poster.length > 1000),
    loads: performance.getEntriesByType("resource").length, text: inside.body.innerText,
    boxes: [...inside.querySelectorAll(".scroll")].map(element => getComputedStyle(element).overflowX),
    letters: [...inside.querySelectorAll("svg.road text")].map(element =>
      parseFloat(getComputedStyle(element).fontSize) * element.getScreenCTM().a),
    marks: [...inside.querySelectorAll("svg.road .mark path")].map(element => {{
      const mark = element.getBoundingClientRect(), card = element.closest("figure").getBoundingClientRect();
      return [mark.width, mark.left >= card.left && mark.right <= card.right && mark.bottom <= card.bottom];
    }}),
  }});
}});
</script>"""


def browse(page, folder, width: int, dark: bool) -> tuple[dict, str]:
    """What a page is like, and what the browser's console says."""
    (folder / "wrapper.html").write_text(WRAPPER.format(page=page.as_uri(), width=width))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", scheme]
    flags += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", "--window-size=1300,900"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *flags, (folder / "wrapper.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    shown = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)[1]
    for code, letter in (("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", " "), ("&amp;", "&")):
        shown = shown.replace(code, letter)
    return json.loads(shown), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A suite, a scenario, and a comparison of two policies."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "SECONDS", 0.4)
        patch.setattr(video, "FREEZE", 0.1)
        common = ["--device", "cpu", "--workers", "1"]
        suite = ["--suite", "merge", "--cases", "2", *common]
        scene = ["--env", "intersection", "--episodes", "3", *common]
        for main, *arguments in (
            (command.main, "--policy", "random", "--keep", "2", *suite, "--out", folder / "suite"),
            (command.main, "--policy", "idm", "--keep", "0", "--baselines", "--", *suite, "--out", folder / "other"),
            (command.main, "--policy", "random", "--keep", "2", *scene, "--out", folder / "scene"),
            (compare.main, folder / "other", folder / "suite", "--out", folder / "compared"),
        ):
            patch.setattr("sys.argv", ["", *(str(part) for part in arguments if part != "--")])
            exit_on_user_error(main)
    return folder


PAGES = {"suite": "suite/report.html", "scene": "scene/report.html", "comparison": "compared/compare.html"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits(name, width, dark, results, tmp_path):
    found, console = browse(results / PAGES[name], tmp_path, width, dark)
    assert console == ""
    assert found["width"] <= width and found["scroll_width"] == found["width"], found["wide"]
    assert found["wide"] == [] and found["scrolled"] == 0
    assert set(found["boxes"]) == {"auto"}
    assert found["loads"] <= 1  # the page itself
    paper, ink = (sum(map(int, re.findall(r"\d+", found[key])[:3])) for key in ("background", "ink"))
    assert (paper < 150 < ink) if dark else (ink < 150 < paper)
    if name != "comparison":
        assert found["videos"] and all(found["videos"])
        assert found["marks"] and all(inside and 4 < size < 14 for size, inside in found["marks"])
        assert min(found["letters"]) > 9 and max(found["letters"]) < 16  # pixels
    assert "collision rate" in found["text"].lower()


def test_what_is_wrong_with_a_page_would_be_noticed(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><body><p style="width: 500px">wide</p><script>undefined.x</script>')
    found, console = browse(page, tmp_path, 360, dark=False)
    assert found["scroll_width"] > found["width"] and found["wide"] == ["P."] and found["scrolled"] > 0
    assert "TypeError" in console
