"""The built book in a browser: every page, on a desktop and a phone, in the light and in the dark.

The default run sees three pages on a phone in the dark; ``pytest -m browser`` sees all. Without Chromium all of it is
skipped. The last part shows that each check can fail, on small pages with one fault each.
"""

from __future__ import annotations

import itertools
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from built_book import DEMO, ROOT, html_pages, pages_in, read

yaml = pytest.importorskip("yaml")
axe = pytest.importorskip("axe_playwright_python.base", reason="nothing is seen in a browser: axe-core is missing")

pytestmark = pytest.mark.browser

DEVICES = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
SCHEMES = ("light", "dark")
PAGES = [
    *pages_in(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))),
    *(f"{folder}/{DEMO}" for folder in ("chapters", "local")),
    "search",
]
# what the default run sees
SAMPLE = [(page, "phone", "dark") for page in ("index", "chapters/claims", "bibliography")]
HEAVIEST = 1_500_000  # bytes of a page without what it shares with others


def several(*lists):
    """All combinations as parameters of a test; those outside the sample are slow."""
    return [
        pytest.param(*one, marks=[] if one in SAMPLE else pytest.mark.slow, id="-".join(one))
        for one in itertools.product(*lists)
    ]


@pytest.fixture(scope="module")
def window(browser):
    """Opens a window of a device in a colour scheme, one of each kind for all tests."""

    @cache
    def opened(device="desktop", scheme="light"):
        # offline: what asks another host is heard, and gets no answer
        return browser.new_context(**DEVICES[device], color_scheme=scheme, reduced_motion="reduce", offline=True)

    return opened


@contextmanager
def visit(window, path):
    """Open a page from disk, its formulas typeset and its folded parts open, and listen to it from the start.

    Yields the page, the list of what it complained about, and the list of addresses it asked for.
    """
    page = window.new_page()
    complaints, asked = [], []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(path.as_uri())
        page.evaluate("async () => window.MathJax?.startup && await MathJax.startup.promise")
        page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
        yield page, complaints, asked
    finally:
        page.close()


# --- what is checked of a page --------------------------------------------------------------------------

# a short name for an element, for messages
NAMED = """(e) => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '')
    + [...e.classList].slice(0, 2).map((c) => '.' + c).join('') + ' ' + e.textContent.trim().slice(0, 30)"""


def faults(page, complaints, asked, rules=None):
    """What is wrong with a page that was just opened, a line for each fault."""
    told = [f"console: {one}" for one in complaints]
    told += [f"another host: {url}" for url in asked if urlsplit(url).scheme not in ("file", "data", "blob")]
    return [*told, *overflow(page), *formulas(page), *dead_links(page), *weight(page, asked), *violations(page, rules)]


def overflow(page):
    """The page, and the elements that widen it, where it is wider than its window."""
    width = page.viewport_size["width"]
    found = page.evaluate(
        """(width) => {
          const scrolls = (e) => e && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
          const root = document.documentElement;
          if (root.scrollWidth <= width) return null;
          const wide = [...document.body.querySelectorAll('*')].filter(
            (e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement));
          return [root.scrollWidth, wide.slice(-3).map(NAMED)];
        }""".replace("NAMED", NAMED),
        width,
    )
    return [f"overflow: {found[0]} of {width} pixels, by {found[1]}"] if found else []


def formulas(page):
    """Formulas that MathJax did not or could not typeset."""
    found = page.evaluate(
        r"""() => {
          const raw = [...document.querySelectorAll('.math')].filter((e) => !e.querySelector('mjx-container'));
          const wrong = [...document.querySelectorAll('mjx-merror, [data-mjx-error]')];
          const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          for (let text; (text = texts.nextNode());)
            if (/\\[([]|\$[^$\s]/.test(text.data) && !text.parentElement.closest('pre, code, script, .sig, .math'))
              raw.push(text.parentElement);
          return [...raw, ...wrong].map(NAMED);
        }""".replace("NAMED", NAMED)
    )
    return [f"formula: {one}" for one in found]


@cache
def anchors(path):
    return read(path).ids


def dead_links(page):
    """Links to files and to places in files that are not there."""
    told = []
    for url in sorted(set(page.evaluate("() => [...document.querySelectorAll('a[href]')].map((e) => e.href)"))):
        parts = urlsplit(url)
        if parts.scheme == "file":
            target = Path(unquote(parts.path))
            place = unquote(parts.fragment)
            if not target.is_file():
                told.append(f"link: no {url}")
            elif place and target.suffix == ".html" and place not in anchors(target):
                told.append(f"link: no place {url}")
    return told


def weight(page, asked):
    """The page, where it and what it alone loads are too heavy."""
    images = page.evaluate("() => [...document.images].map((e) => e.currentSrc || e.src)")
    files = {unquote(urlsplit(url).path) for url in [*asked, *images] if url.startswith("file:")}
    own = [Path(file) for file in files if "/_static/" not in file]
    total = sum(file.stat().st_size for file in own if file.is_file())
    return [f"weight: {total} bytes"] if total > HEAVIEST else []


def violations(page, rules=None):
    """What axe-core finds serious or critical; of text in the same colours only the first has its contrast checked."""
    page.evaluate(axe.AXE_SCRIPT)
    found = page.evaluate(
        """async (rules) => {
          const looks = new Set();
          for (const e of document.body.querySelectorAll('*')) {
            if (![...e.childNodes].some((c) => c.nodeType === Node.TEXT_NODE && c.data.trim())) continue;
            if (!e.checkVisibility({visibilityProperty: true})) continue;
            const own = getComputedStyle(e);
            const look = [own.color, own.fontSize, own.fontWeight];
            for (let above = e; above; above = above.parentElement) {
              const {backgroundColor, backgroundImage, opacity} = getComputedStyle(above);
              const seen = [backgroundColor, backgroundImage, opacity].join();
              if (seen !== 'rgba(0, 0, 0, 0),none,1') look.push(seen);
            }
            if (looks.size < looks.add(look.join('|')).size) e.dataset.look = '';
          }
          axe.configure({rules: [{id: 'color-contrast', selector: '[data-look]'}]});
          const {violations} = await axe.run(
            {reporter: 'no-passes', preload: false, ...(rules ? {runOnly: rules} : {})});
          return violations.map((v) => [v.id, v.impact, v.help, v.nodes.map((n) => n.target.join(' '))]);
        }""",
        rules,
    )
    return [
        f"axe: {rule} ({impact}): {said}: {places[:3]}"
        for rule, impact, said, places in found
        if impact in ("serious", "critical")
    ]


def out_of_reach(page):
    """Controls that the Tab key does not reach, and those that do not show that they are reached."""
    n = page.evaluate(
        """() => {
          // what stands for a control: a radio button is drawn by the text beside it
          const drawn = (e) => e.type === 'radio' ? e.nextElementSibling : e;
          // what shows the focus: an outline or another colour, of the control or of what is laid over or drawn in it
          const look = (e) => [[e], [e, '::after'], ...[...e.children].map((inner) => [inner])].map((one) => {
            const s = getComputedStyle(...one);
            return [s.outlineStyle === 'none' ? '' : s.outline, s.boxShadow, s.backgroundColor, s.borderColor,
                    s.textDecoration, s.stroke].join();
          }).join();
          const all = [...document.querySelectorAll(
            'a[href], button, input, select, textarea, summary, [tabindex="0"]')];
          window.controls = all.filter((e) => !e.disabled && e.getClientRects().length
            && e.checkVisibility({visibilityProperty: true}) && (e.type !== 'radio' || e.checked));
          const before = new Map(all.map((e) => [e, look(drawn(e))]));
          window.reached = new Set();
          window.unseen = new Set();
          document.addEventListener('focusin', ({target}) => {
            window.reached.add(target);
            const shown = drawn(target);
            const {top, bottom, left, right} = shown.getBoundingClientRect();
            const inside = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
            const seen = shown.checkVisibility({visibilityProperty: true, opacityProperty: true});
            if (!inside || !seen || before.get(target) === look(shown)) window.unseen.add(target);
          });
          return window.controls.length;
        }"""
    )
    for _ in range(n + 10):
        page.keyboard.down("Tab")  # held
    page.keyboard.up("Tab")
    missed, unseen = page.evaluate(
        """() => {
          // in a table whose cells are buttons the Tab key reaches one of them, and arrow keys the others
          const beside = (e) => e.tabIndex < 0 && [...(e.closest('table')?.querySelectorAll('button') ?? [])];
          const missed = window.controls.filter(
            (e) => !window.reached.has(e) && !(beside(e) && beside(e).some((other) => window.reached.has(other))));
          return [missed, [...window.unseen]].map((list) => list.map(NAMED));
        }""".replace("NAMED", NAMED)
    )
    told = [f"keyboard: does not reach {one}" for one in missed]
    return told + [f"keyboard: no focus to see at {one}" for one in unseen]


# --- every page -----------------------------------------------------------------------------------------


def test_the_pages_seen_are_all_there_are(site):
    assert {path.relative_to(site).with_suffix("").as_posix() for path in html_pages(site)} == set(PAGES)


# before the others: it takes longest, and two processes then end at about the same time
@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_reaches_all_of_a_page(site, window, name):
    with visit(window(), site / f"{name}.html") as (page, *_):
        assert out_of_reach(page) == []


@pytest.mark.parametrize(("name", "device", "scheme"), several(PAGES, DEVICES, SCHEMES))
def test_a_page_is_whole(site, window, name, device, scheme):
    # what axe-core checks besides contrast is the same in the light and in the dark
    with visit(window(device, scheme), site / f"{name}.html") as seen:
        assert faults(*seen, rules=["color-contrast"] if scheme == "dark" else None) == []


@pytest.mark.slow
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_the_keyboard_opens_and_closes_the_menus_of_a_phone(site, window, side):
    with visit(window("phone", "dark"), site / "chapters" / "loss.html") as (page, *_):
        menu = page.locator(f"dialog#pst-{side}-sidebar-modal")
        assert not menu.is_visible()
        page.locator(f"button.{side}-toggle").press("Enter")
        assert menu.is_visible()
        page.keyboard.press("Tab")
        assert menu.evaluate("(menu) => menu.contains(document.activeElement)")
        assert violations(page) == []
        page.keyboard.press("Escape")
        assert not menu.is_visible()


# --- the search -----------------------------------------------------------------------------------------


def own_words(site):
    """The longest word that only this page has in its paragraphs, for each chapter."""
    prose = {
        name: " ".join(re.findall(r"<p>(.*?)</p>", (site / f"{name}.html").read_text(encoding="utf-8"), re.S))
        for name in PAGES
    }
    words = {
        name: set(re.findall(r"(?<![\w-])[a-z]{6,}(?![\w-])", re.sub(r"<[^>]*>", "", text)))
        for name, text in prose.items()
    }
    return {
        name: max(
            words[name].difference(*(words[other] for other in PAGES if other != name)), key=lambda w: (len(w), w)
        )
        for name in PAGES
        if name.startswith("chapters/") and DEMO not in name
    }


@pytest.mark.slow
def test_the_search_finds_each_chapter_by_a_word_of_its_own(site, window):
    words = own_words(site)
    assert len(words) >= 10
    missed = {}
    with visit(window(), site / "index.html") as (page, complaints, _):
        page.keyboard.press("Control+k")
        page.keyboard.type(words["chapters/loss"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/search.html?q={words['chapters/loss']}*")
        for name, word in words.items():
            page.goto((site / "search.html").as_uri() + f"?q={word}")
            page.locator("#search-results .search-summary").wait_for()
            if not page.locator(f"#search-results a[href*='{name}.html']").count():
                missed[name] = word
        assert complaints == []
    assert missed == {}


# --- each check can fail --------------------------------------------------------------------------------

PLAIN = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Plain</title>
<main><h1>Plain</h1><p>Words, and <a href="#place">a link</a> to <span id="place">a place</span>.</p>{}</main>
</html>"""
DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@pytest.fixture
def told_of(window, tmp_path):
    """What a check says of a small page with the given part, on a phone."""

    def told(part, check):
        path = tmp_path / "page.html"
        path.write_text(PLAIN.format(part), encoding="utf-8")
        anchors.cache_clear()
        with visit(window("phone"), path) as seen:
            return check(*seen)

    return told


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("<script>console.error('spilt')</script>", "console: spilt"),
        ("<script>nothing.there</script>", "console: .*nothing is not defined"),
        ('<img src="missing.png" alt="A picture">', "console: Failed to load"),
        ('<img src="http://elsewhere.example/a.png" alt="A picture">', "another host: http://elsewhere.example/a.png"),
        ('<p style="width: 500px">Wide</p>', r"overflow: 5\d\d of 390 pixels, by .*Wide"),
        (r"<p>The loss \(x_i\)</p>", "formula: p The loss"),
        ('<p><span class="math">x</span></p>', "formula: span.math"),
        ("<p><mjx-merror>Wrong</mjx-merror></p>", "formula: mjx-merror"),
        ('<p><a href="#nowhere">There</a></p>', "link: no place .*#nowhere"),
        ('<p><a href="nowhere.html">There</a></p>', "link: no .*nowhere.html"),
        (f"<!-- {'x' * HEAVIEST} -->", "weight: 15"),
        (f'<img src="{DOT}">', r"axe: image-alt \(critical\)"),
        ('<p style="color: #aaa">Pale</p>', r"axe: color-contrast \(serious\)"),
    ],
    ids=lambda value: value[:30],
)
def test_a_fault_of_a_page_is_found(told_of, part, fault):
    assert any(re.match(fault, one) for one in told_of(part, faults))


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ('<button tabindex="-1">Press</button>', "keyboard: does not reach button Press"),
        ('<button style="outline: none">Press</button>', "keyboard: no focus to see at button Press"),
        ('<button style="position: fixed; left: -900px">Press</button>', "keyboard: no focus to see at button Press"),
        ('<button style="opacity: 0">Press</button>', "keyboard: no focus to see at button Press"),
    ],
)
def test_a_control_out_of_reach_is_found(told_of, part, fault):
    assert told_of(part, lambda page, *_: out_of_reach(page)) == [fault]


def test_a_page_without_a_fault_has_none(told_of):
    assert told_of("<button>Press</button>", faults) == []
    assert told_of("<button>Press</button>", lambda page, *_: out_of_reach(page)) == []
