"""One suite for all engines: every test that asks for `engine` runs once on each of them."""

from __future__ import annotations

import pytest

from ptycho_core.cli.importing import import_named
from ptycho_core.engine.protocol import Engine
from ptycho_core.engine.registry import registered_engines
from tests.contract.backends import differing_tests, engine_or_skip, required_backends

CONTRACT = "contract test"
"""Property of a report: the engine, and the test's id without the engine's name."""
_passed: dict[str, set[str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        action="append",
        metavar="MODULE:FACTORY",
        help="test this engine instead of the registered ones; may be given again",
    )
    parser.addoption(
        "--plugin",
        action="append",
        metavar="MODULE",
        help="import this module, or .py file, whose losses and optimisers are tested; may be given again",
    )


_plugins: list[str] = []


def loaded_plugins() -> list[str]:
    return _plugins


def pytest_configure(config: pytest.Config) -> None:
    for name in config.getoption("--plugin", default=None) or ():
        import_named(name)
        _plugins.append(name)


def engine_names(config: pytest.Config) -> list[str]:
    chosen = config.getoption("--engine", default=None)
    return chosen or sorted({*registered_engines(), *required_backends()})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        names = engine_names(metafunc.config)
        ids = [name.rpartition(":")[2] for name in names]
        metafunc.parametrize("engine", names, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Engine:
    return engine_or_skip(request.param)


# With PTYCHO_REQUIRE_BACKENDS, the same tests must have passed on all the engines that it names. What a test is goes
# with its report, which workers of pytest-xdist send to the process that judges.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "engine" in callspec.params:
            name = callspec.params["engine"]
            test, _, values = item.nodeid.partition("[")
            rest = values.rstrip("]").split("-")
            rest.remove(name.rpartition(":")[2])
            item.user_properties.append((CONTRACT, [name, f"{test}[{'-'.join(rest)}]" if rest else test]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for key, value in report.user_properties:
        if key == CONTRACT and report.when == "call" and report.passed:
            name, test = value
            _passed.setdefault(name, set()).add(test)


def _differences(config: pytest.Config) -> list[str]:
    if not _passed or hasattr(config, "workerinput"):  # a worker has but a part of the tests
        return []
    return differing_tests({name: _passed.get(name, set()) for name in required_backends()})


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and _differences(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if differences := _differences(terminalreporter.config):
        terminalreporter.section("contract tests that did not pass on every required engine", red=True)
        for line in differences:
            terminalreporter.line(line)
