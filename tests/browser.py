"""Open a notebook in JupyterLab in a real browser, run all cells, save, and take pictures: what a learner would see.

`python tests/browser.py 02 FOLDER` needs `pip install playwright` and Chromium (here /usr/bin/chromium, or $CHROMIUM).
It works on a copy of the notebooks, with profile smoke, and fails if a cell fails; it says what the page asked the web.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
LAB_PYTHON = os.environ.get("COURSE_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
FLAGS = ("no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_lab(folder: Path, port: int) -> subprocess.Popen:
    """JupyterLab on `folder`, ready to answer."""
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token="]
    server = subprocess.Popen([LAB_PYTHON, "-m", "jupyterlab", *options, f"--notebook-dir={folder}"], cwd=folder)
    for _ in range(120):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1)
            return server
        except OSError:
            time.sleep(0.5)
    raise SystemExit("JupyterLab did not start")


def saved(path: Path) -> list[dict]:
    """The code cells of the file; while JupyterLab is writing it, wait."""
    while True:
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            return [c for c in cells if c["cell_type"] == "code" and c["source"]]
        except ValueError:
            time.sleep(0.2)


def run_all(page: Page, path: Path, minutes: float = 6) -> None:
    """Run > Run All Cells; then wait until the saved file holds an execution count for every code cell."""
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)  # earlier, Run asks for a kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(3)
        page.keyboard.press("Control+s")
        if errors(path) or all(c.get("execution_count") for c in saved(path)):
            return
    page.screenshot(path="not-finished.png")
    raise SystemExit("not all cells were run in time: see not-finished.png")


def errors(path: Path) -> list[str]:
    """The errors that the saved notebook shows."""
    outputs = [o for c in saved(path) for o in c["outputs"]]
    return [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]


def pictures(page: Page, folder: Path, name: str) -> None:
    """Scroll through the notebook and photograph every screen."""
    area = page.locator(".jp-WindowedPanel-outer").first
    area.evaluate("e => e.scrollTop = 0")
    for number in range(60):
        time.sleep(0.7)
        page.screenshot(path=folder / f"{name}-{number:02d}.png")
        if area.evaluate(
            "e => { const b = e.scrollTop; e.scrollTop += 0.9 * e.clientHeight; return e.scrollTop == b }"
        ):
            return


def main() -> None:
    number, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    source = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    path = folder / "notebooks" / source.name
    path.write_text(path.read_text(encoding="utf-8").replace('profile = \\"laptop\\"', 'profile = \\"smoke\\"'))
    port, asked = free_port(), []
    server = start_lab(folder / "notebooks", port)
    try:
        with sync_playwright() as play:
            chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
            browser = play.chromium.launch(executable_path=chromium, args=[f"--{flag}" for flag in FLAGS])
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.on(
                "request", lambda r: None if "127.0.0.1" in r.url or r.url.startswith("data:") else asked.append(r.url)
            )
            page.goto(f"http://127.0.0.1:{port}/lab/tree/{source.name}?reset")
            run_all(page, path)
            pictures(page, out, number)
            browser.close()
    finally:
        server.terminate()
    counts = [c["execution_count"] for c in saved(path)]
    print(f"{source.name}: {len(counts)} cells, run in order: {counts == sorted(counts)}")
    print(f"errors: {errors(path)}; asked of the web: {asked}")
    raise SystemExit(bool(errors(path)))


if __name__ == "__main__":
    main()
