"""What others wrote, in every place where a person reads it: nothing commands a terminal, becomes markup or ends it."""

from __future__ import annotations

import html
import json
import logging
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from matplotlib.text import Text
from tensorboard.plugin_util import markdown_to_safe_html

from callbacks.plan_rollouts import in_words
from callbacks.quiet import quiet
from callbacks.results import PredictionWriter
from gssr import shown
from gssr.commands.main import main
from gssr.commands.plan_table import print_plan
from gssr.evaluation.intervals import Estimate
from gssr.evaluation.predictions import Forecast
from gssr.evaluation.report import Check, Report, Table
from gssr.runs.folders import Found
from gssr.runs.messages import say
from gssr.runs.sharing import model_card
from gssr.sequences.clock import iso_time
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch
from gssr.states.tables import print_continuations
from tests.evaluation.fakes import FakeNetwork, series, with_goal

pytestmark = pytest.mark.attack

ATTACKS = {
    "markup of rich that ends": "Become [/bold] strong",
    "markup of rich that opens": "[red]Become[blink] [link=file:///etc] strong",
    "emoji of rich": "Become :skull: strong",
    "colours": "Become \x1b[31mred\x1b[0m",
    "a cleared screen": "Become \x1b[2J\x1b[H blank",
    "a title of the window": "Become \x1b]0;other\x07 titled",
    "a link of the terminal": "Become \x1b]8;;http://e.vil\x1b\\linked\x1b]8;;\x1b\\",
    "a copy to the clipboard": "Become \x1b]52;c;cm0gLXJm\x07 copied",
    "a sequence in one character": "Become \x9b31m red",
    "a device's string": "Become \x90q\x9c drawn",
    "a carriage return": "Become weak\rBecome strong",
    "backspaces": "Become weak\b\b\b\bstrong",
    "a bell and a zero byte": "Become \x07\x00 loud",
    "line breaks": "Become strong\n\ngssr: all is well\x0b\x0c\x85\u2028\u2029.",
    "the other writing direction": "Become \u202egnorts\u202c \u2066x\u2069",
    "invisible characters": "Be\u200bcome\u2060 \ufeffstrong\U000e0041",
    "half a surrogate pair": "Become \udc80 strong",
    "mathematics that is wrong": r"Become $\frac$ and $ and $$x_{$",
    "mathematics that is right": r"Become $\sqrt{2}$ at 5 $",
    "HTML": "Become <script>alert(1)</script><img src=x onerror=alert(1)> & &lt;b&gt;",
    "Markdown": "Become **bold** __bold__ _it_ `code` ~~no~~ # head",
    "links": "Become [here](http://e.vil) <http://e.vil> http://e.vil www.e.vil a@e.vil ![x](http://e.vil/x.png)",
    "cells of a table": "Become | strong || \\| and more \\",
    "an end of a comment": "Become --> {#id .class} ]]> \\",
    "percent and formats": "Become %s %n %(x)s {0.__class__} {x}",
    "a formula": '=HYPERLINK("http://e.vil","strong")',
    "a path": "../../../etc/passwd",
    "a name too long": "x" * 3_000,
}


@pytest.fixture(params=ATTACKS, ids=list(ATTACKS))
def hostile(request: pytest.FixtureRequest) -> str:
    return ATTACKS[request.param]


def assert_plain(text: str) -> None:
    """Nothing but printable characters and line breaks."""
    strange = {char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not strange, sorted(map(hex, map(ord, strange)))


def rendered(markdown: str) -> str:
    """The page that TensorBoard makes of it, without the tags that our own Markdown asks for."""
    page = markdown_to_safe_html(markdown)
    return re.sub(r"</?(?:table|thead|tbody|tr|th|td|h2|h3|p|strong|em)>", "\n", page)


def assert_same_words(page: str, text: str) -> None:
    """The page shows the words as they stand."""
    squeezed = re.sub(r"\s+", "", html.unescape(page))
    assert re.sub(r"\s+", "", shown.line(text)) in squeezed


def hostile_batch(text: str) -> Batch:
    batch = collate([with_goal(series(1)[0], 50, 50)])
    batch.series, batch.goal = [text], [text]
    return batch


def hostile_forecast(text: str) -> Forecast:
    """Names, units, series, goal and texts are all hostile."""
    batch, network = hostile_batch(text), FakeNetwork()
    plan = network.plan(batch, ["50"], samples=8)
    plan.text = [[text] * len(plan.text[0])]
    return Forecast(batch, plan, network.plan(batch, [None], samples=8), (text, "b"), (text, ""))


def test_a_line_is_plain_and_short(hostile: str) -> None:
    assert_plain(shown.line(hostile))
    assert "\n" not in shown.line(hostile) and len(shown.line(hostile, 20)) <= 200
    assert_plain(shown.lines(hostile))
    assert shown.lines(hostile).count("\n") == hostile.count("\n")
    assert_plain(shown.quoted(hostile))
    assert len(shown.quoted(hostile)) < 300
    assert shown.line(shown.line(hostile)) == shown.line(hostile)


def test_names_of_files_are_short_and_stay_in_their_folder(hostile: str, tmp_path: Path) -> None:
    name = shown.file_name(hostile)
    assert re.fullmatch(r"\w*", name) and len(name.encode()) <= 60
    (tmp_path / f"fan_{name}.png").touch()
    assert len(os.listdir(tmp_path)) == 1


def test_names_that_begin_alike_stay_apart() -> None:
    names = [shown.file_name("x" * 300 + str(i)) for i in range(100)]
    assert len(set(names)) == 100
    assert len(shown.file_name("é" * 300).encode()) <= 60


def test_markdown_shows_it_as_it_stands(hostile: str) -> None:
    page = markdown_to_safe_html(f"| a | b |\n|---|---|\n| {shown.markdown(hostile)} | 1 |")
    assert page.count("<td>") == 2 and page.count("<tr>") == 2
    page = rendered(f"before {shown.markdown(hostile)} after")
    assert not re.search(r"<\w", page)
    assert_same_words(page, hostile)


def test_the_plan_on_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = hostile_forecast(hostile)
    world = SimpleNamespace(scaler=SimpleNamespace(std=torch.ones(2)))
    print_plan(found, SimpleNamespace(value_names=found.value_names, value_units=found.value_units, world=world))
    printed = capsys.readouterr().out
    assert_plain(printed)
    assert "".join(shown.line(hostile).split()) in "".join(printed.split())


def test_the_first_prediction_on_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = hostile_forecast(hostile)
    PredictionWriter()._show(found.with_goal, found.batch, found.value_names)
    assert_plain(capsys.readouterr().out)


def test_continuations_on_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_continuations([hostile], [hostile])
    assert_plain(capsys.readouterr().out)


def test_messages_of_runs_on_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"Going on from {hostile}")
    assert_plain(capsys.readouterr().out)


def test_errors_of_commands_on_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = hostile.replace("\0", "").encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    assert main(["state", "show", f"{file[:100]}.safetensors"]) == 2
    assert_plain(capsys.readouterr().err)


@pytest.fixture
def own_warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with warnings.catch_warnings():
        yield


def test_warnings_and_logs(hostile: str, own_warnings: None, caplog: pytest.LogCaptureFixture) -> None:
    quiet()
    quiet()
    assert_plain(warnings.formatwarning(UserWarning(hostile), UserWarning, hostile, 1, "x = 1"))
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    logger.warning("about %s", hostile)
    logger.removeHandler(caplog.handler)
    assert_plain(caplog.messages[-1])
    assert shown.line(hostile)[:5] in caplog.messages[-1]


def test_a_fan_chart(hostile: str) -> None:
    found = hostile_forecast(hostile)
    figure = found.chart(guides=[(40.0, hostile)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        figure.draw_without_rendering()  # raises for mathematics that is wrong
    drawn = [text for text in figure.findobj(Text) if text.get_text()]
    for text in drawn:
        assert_plain(text.get_text())
        assert len(text.get_text()) < 200
        assert not (set("$\\") & set(text.get_text())) or not text.get_parse_math()
    begin = shown.line(hostile)[:10]
    assert sum(begin in text.get_text() for text in drawn) >= 4  # series, goal, value, texts


def test_predictions_keep_the_data_and_name_files_safely(hostile: str, tmp_path: Path) -> None:
    text = hostile.replace("\udc80", "")  # no file in UTF-8 holds it
    found = hostile_forecast(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = found.write(tmp_path / "deep" / "er", charts=1)
    line = json.loads(file.read_text(encoding="utf-8"))
    assert line["series"] == line["goal"] == line["value_names"][0] == line["with_goal"]["text"][0] == text
    assert sorted(path.suffix for path in (tmp_path / "deep" / "er").iterdir()) == [".jsonl", ".png"]
    assert sorted(os.listdir(tmp_path)) == ["deep"]


def test_the_text_of_tensorboard(hostile: str) -> None:
    found = hostile_forecast(hostile)
    data = SimpleNamespace(value_names=found.value_names, value_units=found.value_units)
    words = in_words(found.batch, 0, found.with_goal, data)
    assert_plain(words)
    page = markdown_to_safe_html(words)
    horizon = len(found.with_goal.text[0])
    assert page.count("<tr>") == 1 + horizon and page.count("<td>") == 4 * horizon and page.count("<th>") == 4
    assert not re.search(r"<(?:a|script|img|code|del)\b", page)
    assert_same_words(rendered(words), hostile)


def test_reports(hostile: str, tmp_path: Path) -> None:
    row = {hostile: Estimate(1.0, 0.1, 0.9, 1.1, 3, 2), "b": hostile}
    table = Table("key", hostile, "", {hostile: row}, unit=hostile if hostile == "%" else "")
    report = Report("r", hostile, "Intro.", {"goal": hostile}, [table], [Check(hostile, 1.0, 0.0)], {})
    text = report.to_markdown()
    assert_plain(text)
    page = markdown_to_safe_html(text)
    assert page.count("<tr>") == 4 and not re.search(r"<(?:a|script|img|code|del)\b", page)
    assert_same_words(rendered(text), hostile)
    if "\udc80" not in hostile:
        _, file = report.write(tmp_path)
        assert json.loads(file.read_text(encoding="utf-8"))["settings"]["goal"] == hostile


@pytest.mark.parametrize("hours", [1e12, -1e12, 1e300, 2.0**53])
def test_times_beyond_the_calendar_are_hours(hours: float) -> None:
    assert iso_time(hours).endswith(" h")


def test_what_is_plain_stays_as_it_is() -> None:
    for text in ("Weaken to 35 knots in 48 hours.", "Größe (m²), 50 %", "日本語", "wind_speed", "हिन्\u200dदी", ""):
        assert shown.line(text) == shown.lines(text) == shown.markdown(text) == text
    assert shown.file_name("Storm 1, north") == "Storm_1_north"
    assert shown.quoted("a b") == "'a b'"


def test_only_what_is_repeated_word_for_word_is_a_ditto() -> None:
    texts = ["a b", "a  b", "a b.", "", "", "a b"]
    assert shown.with_dittos(texts) == ["a b", "〃", "a b.", "", "", "a b"]


def test_the_card_of_a_shared_network(hostile: str) -> None:
    values = {"names": [hostile, "b"], "units": [hostile, ""]}
    options = {"values": values, "world": {"latent_dim": 4, "hidden_dim": 8}, "backbone": {"dtype": "float32"}}
    options |= {"speech": {"prefix_tokens": 2}, "steering": {"schedule": {"class_path": hostile}}}
    backbone = {"name": hostile, "revision": hostile, "fingerprint": "f"}
    checkpoint = {"hyper_parameters": options, "gssr": {"backbone": backbone}, "state_dict": {}, "global_step": 3}
    card = model_card(hostile, hostile, checkpoint, Found(Path("none.ckpt"), None))
    assert_plain(card)
    assert not re.search(r"<(?:a|script|img|del)\b", markdown_to_safe_html(card))
    assert card.count("```") == 4
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "gssr"
    assert_same_words(markdown_to_safe_html(card.split("\n- backbone")[0]), hostile)
