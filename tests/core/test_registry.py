"""Things found by name: ours, those of other packages, and those that a program registers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.registry import Registry, closest
from tests.core.plugins import entry_point
from tests.core.refusals import refusal_of

Plugins = Callable[..., None]


def shallow() -> str:
    return "shallow"


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    """One of ours, and no plugin."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    return Registry("thing", ("SomeConfig", "thing"), group="some.things", ours={"Shallow": f"{__name__}:shallow"})


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plugins:
    """`plugins(name="code")`: other packages' things, `thing` in modules with that code."""

    def install(**codes: str) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        points = []
        for name, code in codes.items():
            module = f"{tmp_path.name}_{name}"
            (tmp_path / f"{module}.py").write_text(code)
            monkeypatch.delitem(sys.modules, module, raising=False)
            points.append(entry_point(name, f"{module}:thing", "some.things"))
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)

    return install


def test_ours_are_imported_when_they_are_asked_for(things: Registry[Any]) -> None:
    things.ours["lost"] = "a_module_that_is_not_there:thing"
    assert things.names() == ("Shallow", "lost")
    assert things.load("Shallow") is shallow
    with pytest.raises(ModuleNotFoundError):  # a bug of ours keeps its traceback
        things.load("lost")


@pytest.mark.parametrize("name", ["Shallow", "shallow", "SHALLOW"])
def test_names_are_found_in_any_case(things: Registry[Any], name: str) -> None:
    assert things.load(name) is shallow
    assert things.find(name) == "Shallow"
    assert things.find("deep") is None


@pytest.mark.parametrize(
    ("name", "remedy"), [("shalow", "Did you mean 'Shallow'?"), ("x", "Registered things: Shallow, deep.")]
)
def test_an_unknown_name_lists_the_known_ones_and_the_closest(things: Registry[Any], name: str, remedy: str) -> None:
    things.register("deep")(print)
    refusal_of(
        lambda: things.load(name),
        ConfigurationError,
        f"SomeConfig: thing must be one of Shallow, deep; got {name!r}. ",
        source="SomeConfig",
        key="thing",
        remedy=remedy,
    )


def test_what_a_program_registers_is_found(things: Registry[Any]) -> None:
    @things.register("deep")
    def deep() -> str:
        return "deep"

    assert things.load("Deep") is deep
    assert things.names() == ("Shallow", "deep")
    assert things.is_ours("shallow") and not things.is_ours("deep")


def test_the_same_function_defined_again_takes_its_own_place(things: Registry[Any]) -> None:
    def define(number: int) -> Callable[[], int]:
        def deep() -> int:
            return number

        return things.register("deep")(deep)

    define(1)
    second = define(2)
    assert things.load("deep") is second


@pytest.mark.parametrize("taken", ["shallow", "deep", "plugged"])
def test_a_name_that_is_taken_is_refused_unless_replaced(things: Registry[Any], plugins: Plugins, taken: str) -> None:
    plugins(plugged="thing = print")
    things.register("deep")(sum)
    refusal_of(
        lambda: things.register(taken)(max),
        ConfigurationError,
        source=f"thing {taken!r}",
        received="registered already",
        remedy="Choose another name, or pass replace=True.",
    )
    things.register(taken, replace=True)(max)
    assert things.load(taken) is max
    assert len(things.names()) == 3


def test_a_word_with_a_meaning_of_its_own_names_nothing(plugins: Plugins) -> None:
    plugins(auto="thing = print")
    things: Registry[Any] = Registry("thing", ("SomeConfig", "thing"), group="some.things", reserved=("auto",))
    assert things.names() == ()
    refusal_of(lambda: things.register("Auto")(print), ConfigurationError, received="has a meaning of its own")
    refusal_of(lambda: things.load("autp"), ConfigurationError, expected="one of auto", remedy="Did you mean 'auto'?")


def test_a_plugin_is_listed_without_being_imported(things: Registry[Any], plugins: Plugins) -> None:
    plugins(plugged="raise AssertionError('imported')")
    assert things.names() == ("Shallow", "plugged")


def test_a_plugin_does_not_take_the_name_of_ours(things: Registry[Any], plugins: Plugins) -> None:
    plugins(SHALLOW="thing = print", plugged="thing = len")
    assert things.load("shallow") is shallow
    assert things.load("plugged") is len


BROKEN = {
    "package": ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named"),
    "bug": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exit": ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
    "syntax": ("def", "SyntaxError: "),
    "attribute": ("", "AttributeError: "),
}


@pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_a_warning_and_asking_for_it_an_error(
    things: Registry[Any], plugins: Plugins, core_log: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    plugins(broken=code, plugged="thing = len")
    for _ in range(2):
        assert dict(things.load_all()) == {"Shallow": shallow, "plugged": len}
    (message,) = core_log.messages
    named = "thing 'broken' of other-package 1.2: it cannot be imported: "
    assert message.startswith(named + reason)
    error = refusal_of(lambda: things.load("broken"), ConfigurationError, named + reason, setting="thing")
    assert error.remedy == "Update it, or uninstall it."


def test_what_is_made_of_a_plugin_may_fail_in_its_own_words(things: Registry[Any], plugins: Plugins) -> None:
    plugins(plugged="from ptycho_core.errors import DataError\ndef thing():\n    raise DataError('no disk')\n")
    made: Registry[Any] = Registry("thing", ("SomeConfig", "thing"), group="some.things", make=lambda one: one())
    refusal_of(lambda: made.load("plugged"), DataError, source="no disk")


@pytest.mark.parametrize(
    ("word", "options", "near"),
    [("TORHC", ["torch", "tensorflow"], "torch"), ("x", ["torch"], None), ("cpus", [1, None, "CPU"], "CPU")],
)
def test_the_closest_of_some_words(word: str, options: list[Any], near: str | None) -> None:
    assert closest(word, options) == near
