"""The page in a browser: what a reader clicks does what it says, and nothing leaves the machine."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import page_of

from pipeline.config.params import Params

playwright = pytest.importorskip("playwright.sync_api", reason="playwright: the extra `browser`")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(
    fabricate_in: Callable[[Path, dict], tuple[Path, Params]],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The page of three students, whose classes differ in the feature space."""
    folder = tmp_path_factory.mktemp("page")
    students = {"a_ce": ("ce", 0.5), "b_cirkd": ("cirkd", 0.55), "c_kd": ("kd", 0.52)}
    path = folder / "index.html"
    path.write_text(page_of(*fabricate_in(folder, students), noise=0.3), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page in a window of its own; no error and no request may come of it."""
    said: list[str] = []
    contexts = []

    def open_page(width: int = 1200, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    asked: list[str] = []
    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {address}


def firsts(page: Any, table: str) -> list[str]:
    """The first words of a table's rows, the teacher's left out."""
    return page.locator(f"{table} tbody:last-of-type td:first-child small").all_inner_texts()


def test_columns_sort_both_ways_by_mouse_and_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page()
    head = page.locator(".results th", has_text="mIoU")
    names = ["b_cirkd · seed 0", "c_kd · seed 0", "a_ce · seed 0"]
    assert head.get_attribute("aria-sort") == "descending"
    assert firsts(page, ".results") == names
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert firsts(page, ".results") == names[::-1]
    gain = page.locator(".results th", has_text="Gain")
    for order in (["b", "c", "a"], ["c", "b", "a"]):  # who has no gain is last in both
        gain.get_by_role("button").press("Enter")
        assert [name[0] for name in firsts(page, ".results")] == order
    assert head.get_attribute("aria-sort") is None


def test_slider_moves_the_boundary_between_what_is_chosen(open_page: Callable[..., Any]) -> None:
    page = open_page()
    cut = page.locator("#cut")
    left = page.locator("#compare img.left")
    clip = "image => getComputedStyle(image).clipPath"
    before = left.evaluate(clip)
    cut.press("End")
    assert left.evaluate(clip) != before
    box = cut.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert float(cut.input_value()) == pytest.approx(25, abs=1)
    page.select_option("#left", "a_ce")
    page.select_option("#sample", "1")
    assert left.get_attribute("alt") == "a_ce of val/1"
    shown = left.evaluate("image => [image.complete, image.naturalWidth]")
    assert shown == [True, 28]


def test_a_chosen_pixel_is_compared_with_all_others(open_page: Callable[..., Any]) -> None:
    page = open_page()
    canvases = page.locator(".similar canvas")
    assert canvases.count() == 3
    pixels = "canvas => canvas.toDataURL()"
    before = [canvases.nth(n).evaluate(pixels) for n in range(3)]
    assert page.locator("#chosen").inner_text().startswith("road,")
    # A click on the sky, then up from the ground again by keys: 5 rows, sky above row 2.
    canvases.first.click(position={"x": 60, "y": 5})
    assert page.locator("#chosen").inner_text().startswith("<b>&sky,")
    assert all(canvases.nth(n).evaluate(pixels) != before[n] for n in range(3))
    told = page.locator('figure[data-map="0"] .quiet').inner_text()
    same, others = (float(part.split()[-1]) for part in told.split(", "))
    assert same > others + 0.3
    for _ in range(5):
        page.locator("#picker").press("ArrowDown")
    assert page.locator("#chosen").inner_text().startswith("road,")
    for _ in range(9):
        page.locator("#picker").press("ArrowLeft")
    assert page.locator("#chosen").inner_text().startswith("void,")
    assert page.locator('figure[data-map="0"] .quiet').inner_text() == "no label here"


def test_a_pressed_class_stays_alone(open_page: Callable[..., Any]) -> None:
    page = open_page()
    road = page.get_by_role("button", name="road")
    road.click()
    assert road.get_attribute("aria-pressed") == "true"
    faded = page.locator(".spaces .faded")
    kept = page.locator(".spaces [data-class]:not(.faded)")
    assert kept.count() == 3
    assert faded.count() == 3
    road.click()
    assert faded.count() == 0


def test_light_and_dark_follow_the_system_and_the_button(
    open_page: Callable[..., Any], scheme: str
) -> None:
    page = open_page(scheme=scheme)
    brightness = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128"
    assert page.evaluate(brightness) is (scheme == "light")
    page.locator("#theme").click()
    assert page.evaluate(brightness) is (scheme == "dark")


def test_nothing_is_wider_than_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page(width=380)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 380


def test_paper_is_white_and_wide_enough_and_everything_is_open(
    open_page: Callable[..., Any],
) -> None:
    page = open_page(width=720, scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 720
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [380, 1440])
def test_axe_finds_nothing_serious(open_page: Callable[..., Any], width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(width, scheme)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (rule["id"], [node["html"][:200] for node in rule["nodes"]][:3])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []
