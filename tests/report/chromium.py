"""A headless Chromium that notes what it asks for and what it complains of."""

import base64
import json
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed (apt-get install chromium-driver)"
)

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


class Browser:
    """Opens one page at a time; what pages logged and asked for is kept."""

    def __init__(self, profile: Path):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(120)
        self.driver.set_page_load_timeout(300)

    def open(self, page: Path | str) -> None:
        """Load the page, with nothing kept of what was before."""
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(page if isinstance(page, str) else page.resolve().as_uri())

    def run(self, script: str, *arguments):
        """What the script returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """What the console held since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """URLs asked for since this was last asked; data: URIs are none."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def width(self, width_px: int, height_px: int = 900) -> None:
        """The size of the window in CSS px."""
        metrics = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": width_px < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, kind: str = "", **features: str) -> None:
        """The medium ("print") and features such as prefers_color_scheme."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": named})

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()
