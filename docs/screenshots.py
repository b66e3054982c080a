"""Makes the pictures of pages in this folder: `python docs/screenshots.py`, after `wdsfilter demo`; needs Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

RUN, SHARDS = Path("demo/out"), "demo/shards/world-*.tar"
SHOTS = {  # name: page, width, from where, to where, dark
    "report-threshold": ("report.html", 1100, 720, 1345, False),
    "report-pictures": ("report.html", 1100, 3275, 4048, False),
    "report-phone": ("report.html", 390, 0, 1700, False),
    "report-tablet": ("report.html", 820, 0, 1500, True),
    "report-desktop": ("report.html", 1440, 0, 1700, False),
    "label": ("label.html", 820, 0, 560, False),
}


def main() -> None:
    """Write the pages of the demo's run, and a picture of each beside this file."""
    for extra in ([], ["--label", "100"]):
        report = [sys.executable, "-m", "wdsfilter", "report", str(RUN), "--shards", SHARDS, *extra]
        subprocess.run(report, check=True)
    for name, (page, width, top, height, dark) in SHOTS.items():
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "page.png"
            shoot((RUN / "wdsfilter" / page).resolve(), picture, width, height, dark)
            image = Image.open(picture).convert("RGB").crop((0, top, width, height))
            image.save(Path(__file__).with_name(f"{name}.webp"), quality=70, method=6)


def shoot(page: Path, picture: Path, width: int, height: int, dark: bool) -> None:
    """Take a picture of the upper part of a page."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no chromium here")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    switches += ["--blink-settings=preferredColorScheme=0"] * dark
    switches += [f"--user-data-dir={picture.parent / 'profile'}", "--virtual-time-budget=3000"]
    size = [f"--window-size={width},{height}", f"--screenshot={picture}"]
    subprocess.run([chromium, *switches, *size, page.as_uri()], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
