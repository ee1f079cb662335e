"""The interactive figures in a browser: the numbers of the playground are those of `RnCLoss`, and readers can use both.

They need the package playwright and Chromium (``chromium``, or what ``CHROMIUM`` names).
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from rnclib import RnCLoss, rnc_lower_bound
from rnclib.interactive import Interactive, molecule_map, playground

SCRIPTS = Path(__file__).resolve().parents[1] / "book" / "_interactive"


def figure(kind, data):
    return Interactive(plt.figure(figsize=(1, 1)), "C.", name="a", alt="A drawing", kind=kind, data=data)


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page with one figure, as the book has it; an error in a script fails the test."""
    errors, contexts = [], []

    def open_page(kind, data, **options):
        names = {"playground": ("rnc_loss.js", "playground.js"), "molecules": ("molecules.js",)}[kind]
        scripts = "".join(f'<script defer src="{(SCRIPTS / n).as_uri()}"></script>' for n in ("interactive.js", *names))
        style = f'<link rel="stylesheet" href="{(SCRIPTS / "interactive.css").as_uri()}">'
        body = figure(kind, data)._repr_mimebundle_()[0]["text/html"]
        file = tmp_path / "page.html"
        file.write_text(f"<!DOCTYPE html><meta charset=utf-8>{style}{scripts}<body>{body}", encoding="utf-8")
        contexts.append(browser.new_context(reduced_motion="reduce", **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


# --- the loss -------------------------------------------------------------------------------------------


def batches():
    """Random batches of points, labels and temperature, some with ties, with equal points, or with both."""
    rng = np.random.default_rng(0)
    for number in range(120):
        n = int(rng.integers(3, 9))
        points = rng.normal(size=(n, 2)) * 10 ** rng.uniform(-2, 1)
        labels = [
            rng.uniform(0, 100, n), rng.integers(0, 5, n).astype(float), rng.integers(20, 30, n) / 10,
            np.repeat(rng.uniform(0, 1), n),
        ][number % 4]  # fmt: skip
        if number % 3 == 0:  # equal points
            points[rng.integers(n, size=2)] = points[0]
        if number % 20 == 0:
            points[:] = points[0]
        yield points, labels, float(10 ** rng.uniform(-2, 1))


def test_the_loss_its_bound_and_gradient_are_those_of_the_library(browser):
    page = browser.new_page()
    page.add_script_tag(path=SCRIPTS / "rnc_loss.js")
    cases = list(batches())
    given = [[points.tolist(), labels.tolist(), temperature] for points, labels, temperature in cases]
    found = page.evaluate("all => all.map(one => ({...rncLoss.evaluate(...one), bound: rncLoss.bound(one[1])}))", given)
    page.close()
    tied = 0
    for (points, labels, temperature), theirs in zip(cases, found, strict=True):
        v = torch.tensor(points, requires_grad=True)
        y = torch.tensor(labels)
        loss = RnCLoss(temperature=temperature)(v, y)
        loss.backward()
        largest = max(1.0, float(v.grad.abs().max()))
        assert abs(theirs["loss"] - loss.item()) <= 1e-9 * max(1.0, loss.item())
        assert np.abs(np.array(theirs["gradient"]) - v.grad.numpy()).max() <= 1e-9 * largest
        assert abs(theirs["bound"] - rnc_lower_bound(y)) <= 1e-12
        each = RnCLoss(temperature=temperature, reduction="none")(v, y).detach().numpy()
        terms = np.array([[np.nan if term is None else term for term in row] for row in theirs["terms"]])
        assert np.isnan(np.diag(terms)).all() and np.isnan(terms).sum() == len(terms)
        np.testing.assert_allclose(np.nanmean(terms, axis=1), each, rtol=1e-9, atol=1e-9)
        tied += theirs["bound"] > 0
    assert 60 < tied < 120


def test_labels_that_differ_by_rounding_alone_tie(browser):
    page = browser.new_page()
    page.add_script_tag(path=SCRIPTS / "rnc_loss.js")
    labels = [0.1, 0.2, 0.3, 0.7]  # 0.2 - 0.1 and 0.3 - 0.2 differ in the last place
    assert page.evaluate("labels => rncLoss.bound(labels)", labels) == pytest.approx(2 * np.log(2) / 12)
    assert rnc_lower_bound(torch.tensor(labels, dtype=torch.float64)) == pytest.approx(2 * np.log(2) / 12)
    assert page.evaluate("labels => rncLoss.bound(labels)", [0.1, 0.2, 0.3001, 0.7]) == 0
    page.close()


# --- the playground -------------------------------------------------------------------------------------

POINTS = [[-1.3, 1.5], [1.6, -0.4], [-0.2, -1.9], [0.5, 1.0], [-2.1, -0.8]]
LABELS = [20, 30, 40, 40, 70]


def values(page):
    """Loss, bound and their difference, as shown."""
    return [float(text.replace("−", "-")) for text in page.locator(".pg-values dd").all_inner_texts()]


def test_the_playground_begins_with_the_loss_of_its_points(opened):
    page = opened("playground", playground(POINTS, LABELS, 2))
    y = torch.tensor(LABELS)
    loss = RnCLoss(temperature=2)(torch.tensor(POINTS, dtype=torch.float64), y).item()
    assert values(page)[:2] == [round(loss, 4), round(rnc_lower_bound(y), 4)]
    terms = [float(text) for text in page.locator(".pg-terms button").all_inner_texts()]
    assert len(terms) == 20 and np.mean(terms) == pytest.approx(loss, abs=0.005)
    assert not page.get_by_alt_text("A drawing").is_visible()
    page.get_by_role("button", name="Show the still figure").click()
    assert page.get_by_alt_text("A drawing").is_visible()


def test_points_move_by_mouse_and_by_keyboard(opened):
    page = opened("playground", playground(POINTS, LABELS, 2), viewport={"width": 390, "height": 1500})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    point, seen = page.get_by_role("button", name=re.compile("^A, label 20")), [values(page)[0]]
    box = point.locator("circle").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 90, steps=3)
    page.mouse.up()
    seen.append(values(page)[0])
    there = re.search(r"at (.+), (.+)$", point.get_attribute("aria-label").replace("−", "-"))
    assert float(there[1]) > -1.1 and float(there[2]) < 1.2  # to the right and down
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        point.press(key)
        seen.append(values(page)[0])
    assert len(set(seen)) == len(seen)
    # one sentence after a while, not one for each step
    told = page.get_by_role("status")
    told.filter(has_text=f"Loss {seen[-1]:.3f}").wait_for(state="attached", timeout=5000)


def test_labels_and_temperature_change_the_loss(opened):
    page = opened("playground", playground(POINTS, LABELS, 2))
    page.get_by_label("Label of D").fill("55.5")
    y = torch.tensor([20, 30, 40, 55.5, 70], dtype=torch.float64)
    v = torch.tensor(POINTS, dtype=torch.float64)
    assert values(page)[:2] == [round(RnCLoss(temperature=2)(v, y).item(), 4), round(rnc_lower_bound(y), 4)]
    page.get_by_label("Temperature τ").fill("-1")
    assert values(page)[0] == round(RnCLoss(temperature=0.5)(v, y).item(), 4)
    page.get_by_label("Label of D").fill("")  # is no label: nothing changes
    assert values(page)[0] == round(RnCLoss(temperature=0.5)(v, y).item(), 4)


@pytest.mark.parametrize("labels", [LABELS, [1, 1, 1, 1], [10, 20, 30, 40, 50, 60], [0, 1, 4, 100]], ids=str)
def test_an_arrangement_by_label_comes_near_the_bound(opened, labels):
    page = opened("playground", playground(np.random.default_rng(0).normal(size=(len(labels), 2)), labels, 2))
    page.get_by_role("button", name="Shuffle").click()
    before = values(page)[2]
    page.get_by_role("button", name="Arrange by label").click()
    assert values(page)[2] < 0.05 and values(page)[2] < before
    # and so does the descent, which stands still for readers who want no motion
    page.get_by_role("button", name="Start again").click()
    start = values(page)[2]
    page.get_by_role("button", name="Follow the forces").click()
    assert values(page)[2] < 0.1 * start or values(page)[2] < 0.006


def test_a_term_says_what_it_is_made_of(opened):
    page = opened("playground", playground(POINTS, LABELS, 2))
    page.get_by_role("button", name=re.compile(r"^anchor B \(30\), positive A \(20\)")).click()
    text = page.locator(".pg-pair p").inner_text()
    term = re.search(r"probability ([\d.]+); the term is −log \1 = ([\d.]+)\. It ties with C, D: .* 1/3", text)
    assert term and -np.log(float(term[1])) == pytest.approx(float(term[2]), abs=0.03)
    page.keyboard.press("ArrowRight")  # over the diagonal
    assert page.locator(":focus").get_attribute("aria-label").startswith("anchor B (30), positive C (40)")


def test_without_scripts_there_is_the_drawing(opened):
    page = opened("playground", playground(POINTS, LABELS, 2), java_script_enabled=False)
    assert page.get_by_alt_text("A drawing").is_visible() and page.get_by_role("button").count() == 0


# --- the map of molecules -------------------------------------------------------------------------------


@pytest.fixture
def molecules():
    table = pd.DataFrame({
        "name": ["methanol", "<img src=x onerror=alert(1)>", "benzene", "chlorine & </script>"],
        "smiles": ["CO", "CC(=O)O", "c1ccccc1", "ClCl"], "target": [1.5, 0.5, -1.6, -8.0],
    })  # fmt: skip
    view = pd.DataFrame({
        "index": range(4), "part": ["train", "test", "test", "train"], "target": table["target"],
        "pc1": [3.0, 2.0, 1.0, 0.0], "pc2": [0.0, 0.0, 0.0, 0.1],
    })  # fmt: skip
    other = view.assign(pc1=view["pc1"] * -1)
    predictions = pd.DataFrame({"method": "a", "index": [1, 2], "prediction": [0.7, -2.0]})
    return molecule_map({"a": view, "b": other}, predictions, table, "log mol/L")


def card(page):
    return page.locator(".mm-name").inner_text(), page.locator(".mm-facts dd").all_inner_texts()[1:]


def test_the_map_shows_molecules_by_keyboard_name_and_pointer(opened, molecules):
    page = opened("molecules", molecules)
    assert card(page) == ("<img src=x onerror=alert(1)>", ["0.50", "0.70", "not recorded"])
    chart = page.get_by_role("application")
    chart.press("ArrowRight")
    assert card(page) == ("methanol", ["1.50", "not recorded", "not recorded"])
    page.get_by_role("radio", name="b").first.check()  # the mirror image: what was right is left
    chart.press("ArrowRight")
    assert card(page)[0] == "<img src=x onerror=alert(1)>"
    page.get_by_label("Find").fill("benz")
    page.get_by_label("Find").press("Enter")
    assert card(page) == ("benzene", ["−1.60", "−2.00", "not recorded"])
    assert page.locator(".mm-molecule line").count() == 9  # six bonds, three of them double
    page.get_by_label("Find").fill("water")
    page.get_by_label("Find").press("Enter")
    assert "No molecule" in page.locator(".mm-told").inner_text() and card(page)[0] == "benzene"
    page.get_by_label(re.compile("least to most")).press("Home")
    assert card(page)[0] == "chlorine & </script>"
    page.locator("circle.mm-train").last.hover()
    assert card(page)[0] in ("methanol", "chlorine & </script>")


def test_the_map_shows_the_set_that_is_asked_for(opened, molecules):
    page = opened("molecules", molecules, viewport={"width": 390, "height": 1500}, has_touch=True)
    shown = page.locator("circle.mm-train:visible, circle.mm-test:visible")
    assert shown.count() == 4 and page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("radio", name="training (2)").check()
    assert shown.count() == 2 and card(page)[0] in ("methanol", "chlorine & </script>")
    page.get_by_role("radio", name="test (2)").check()
    page.locator("circle.mm-test").last.tap()
    assert card(page)[0] == "benzene"
