"""Ptychodus's window with our algorithms, on Qt's offscreen platform: set, train, infer, solve, stop, refuse."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("ptychodus", reason="ptychodus is not installed")
widgets = pytest.importorskip("PyQt5.QtWidgets", reason="PyQt5 is not installed", exc_type=ImportError)

from tests.core.archives import register_tiny, tiny_model  # noqa: E402
from tests.ptychodus.conftest import ONE, Case  # noqa: E402

SMALL: dict[str, object] = {
    "Backend": ONE,
    "Architecture": "cnn",
    "NumFiltersScale": 1,
    "PadObject": False,
    "BatchSize": "4",
    "NumGroups": "8",
    "NumEpochs": "2",
}


@attrs.frozen
class Window:
    """The window, and what a user does in it."""

    core: Any
    controller: Any
    view: Any

    @property
    def processing(self) -> Any:
        return self.controller._processing_controller

    @property
    def actions(self) -> Any:
        return self.processing._actions_view

    @property
    def text(self) -> str:
        return str(self.view.processing_status_view.text_edit.toPlainText())

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it took too long; the text box says:\n{self.text}"
            widgets.QApplication.processEvents()
            self.controller._run_tasks()
            time.sleep(0.02)

    def choose(self, algorithm: str) -> Any:
        """The page of an algorithm, chosen in the combo box."""
        combo = self.processing._algorithm_view_controller.get_widget()
        combo.setCurrentText(f"ptycho-core_{algorithm}")
        combo.textActivated.emit(combo.currentText())
        page = self.processing._page()
        assert self.processing._stacked_widget.currentWidget() is page.widget
        return page

    def control(self, name: str) -> Any:
        """The first control of that name on the page that is shown."""
        for form in self.processing._page().widget.findChildren(widgets.QFormLayout):
            for row in range(form.rowCount()):
                label = form.itemAt(row, widgets.QFormLayout.LabelRole).widget()
                if label.text() == f"{name}:":
                    control = form.itemAt(row, widgets.QFormLayout.FieldRole).widget()
                    assert control.toolTip() or control.findChild(widgets.QLineEdit)
                    return control
        raise AssertionError(f"no control for {name}")

    def edit(self, name: str, value: object) -> None:
        _put(self.control(name), value)

    def work(self, button: Any) -> str:
        """Press a button, wait until the work has ended, and return what was said of it."""
        before, monitor = len(self.text), self.core.processing_core.processing_api.task_monitor
        runs = monitor.get_completed_runs()
        assert button.isEnabled(), button.toolTip()
        button.click()
        self.until(lambda: monitor.get_completed_runs() > runs)
        self.until(lambda: not self.core._task_manager.foreground_queue_size)
        return self.text[before:]


def _put(control: Any, value: object) -> None:
    if isinstance(control, widgets.QCheckBox):
        control.setChecked(value)
    elif isinstance(control, widgets.QSpinBox):
        control.setValue(value)
    elif isinstance(control, widgets.QComboBox):
        control.setCurrentText(value)
        control.textActivated.emit(value)
    else:
        line = control if isinstance(control, widgets.QLineEdit) else control.findChild(widgets.QLineEdit)
        line.setText(str(value))
        line.editingFinished.emit()


@pytest.fixture
def window(simulated: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Window]:
    """With the simulated scan opened, and its training data exported to `tmp_path`."""
    from ptychodus.controller import ControllerCore
    from ptychodus.controller import core as controllers
    from ptychodus.view import ViewCore

    from ptycho_core.integrations.ptychodus import page
    from ptycho_core.integrations.ptychodus.launch import core_class

    monkeypatch.setattr(controllers, "ProcessingController", controllers.ProcessingController)
    page.install()
    app = widgets.QApplication.instance() or widgets.QApplication([])
    with core_class()(log_level=20) as core:
        core.ptycho_core_library.get_logger().setLevel("INFO")
        view = ViewCore(is_developer_mode_enabled=False)
        controller = ControllerCore(core, view, is_developer_mode_enabled=False)
        controller._run_tasks_timer.stop()  # the test does it
        window = Window(core, controller, view)
        api = core.workflow_api
        data = api.load_assembled_diffraction_data(simulated.pair / "diffraction.h5")
        product = api.load_product(simulated.pair / "product.h5", file_type="HDF5", diffraction=data)
        files = controller._file_dialog_factory
        files.get_existing_directory_path = lambda *_: tmp_path
        product.export_training_data(tmp_path / "train_data.npz", algorithm="ptycho-core_pinn")
        controller._run_tasks()
        core.ptycho_core_library.host.show()
        view.resize(1280, 900)
        view.navigation.set_current_index(view.processing_action.data())
        yield window
        view.close()
        app.processEvents()
    core.ptycho_core_library.get_logger().setLevel("NOTSET")


@pytest.mark.skipif(not ONE, reason="no engine is installed")
def test_a_person_trains_infers_solves_and_is_answered(
    window: Window, tmp_path: Path, without_children: None, capsys: pytest.CaptureFixture[str]
) -> None:
    infer, train = window.actions.reconstruct_button, window.actions.train_button
    axes = window.view.processing_status_view.axes

    # Ours is chosen, and says what it is; nothing is offered that cannot be done.
    assert window.processing._page().algorithm.name == "PINN"
    assert "ptycho-core, engine:" in window.processing._page().facts.text()
    assert train.isEnabled() and not infer.isEnabled() and "press Train" in infer.toolTip()

    # A setting that is unset shows what it stands for, by the architecture; a prior may be a file that is looked for.
    assert window.control("NumEpochs").placeholderText() == "not set: 20"
    window.edit("Architecture", "cnn")
    assert window.control("NumEpochs").placeholderText() == "not set: 50"

    # A model of patterns of another size is loaded, and said to be one when it is used; what is no model is not loaded.
    files = window.controller._file_dialog_factory
    register_tiny()
    facts = {}
    for name, content in (("tiny", tiny_model()), ("text", None)):
        path = tmp_path / f"{name}.h5.zip"
        path.write_text("no model") if content is None else content.save(path)
        files.get_open_file_path = lambda *_, path=path, **__: (path, "")
        before = len(window.text)
        window.processing._page().load.click()
        facts[name] = window.processing._page().facts.text()
    assert "expected a readable model archive" in window.text[before:] and "text" not in facts["text"]
    assert "N = 16" in facts["tiny"] and facts["text"] == facts["tiny"]
    window.edit("NumEpochs", "2")
    lines = window.work(infer).strip().splitlines()
    assert len(lines) == 2 and "expected 16 x 16 patterns" in lines[1], lines

    # Settings that are wrong: one line each, in their names here, and no traceback.
    for name, value in SMALL.items():
        window.edit(name, value)
    wrong = {
        "BatchSize": ("12", "BatchSize must be a positive power of two"),
        "NumEpochs": ("many", "NumEpochs must be a whole number, or empty; got 'many'"),
        "NumGroups": ("-3", "NumGroups must be a whole number >= 1; got -3"),
        "LearningRate": ("0", "LearningRate must be a finite number > 0; got 0.0"),
        "NLLWeight": ("3", "NLLWeight must be a number between 0 and 1; got 3.0"),
    }
    usual = {"LearningRate": "0.001", "NLLWeight": "1", **SMALL}
    for name, (value, said) in wrong.items():
        window.edit(name, value)
        lines = window.work(train).strip().splitlines()
        assert len(lines) == 1 and said in lines[0], lines
        window.edit(name, usual[name])

    # A training: what begins, every epoch, the best one, where the model is, what next; losses in the plot.
    said = window.work(train)
    for text in ("training on", f"with {ONE}", "epoch 1 of 2: loss", "epoch 2 of 2: loss", "model of the best epoch"):
        assert text in said
    assert "Next: Infer" in said and str(tmp_path / "wts.h5.zip") in said
    assert list(axes.lines[0].get_xdata()) == [1, 2]
    assert infer.isEnabled() and "wts.h5.zip" in window.processing._page().facts.text()

    # Inference: an object, with the losses that its model was trained with.
    products = window.core.product_core.product_repository
    said = window.work(infer)
    assert "reconstructing 120 patterns" in said and "done. Next:" in said
    assert [loss.epoch for loss in products[len(products) - 1].get_losses()] == [1, 2]
    window.until(lambda: list(axes.lines[0].get_xdata()) == [1, 2])

    # Stop, in the midst of an epoch.
    window.edit("NumEpochs", 10000)
    monitor = window.core.processing_core.processing_api.task_monitor
    train.click()
    window.until(lambda: monitor.is_processing and 0 < monitor.get_progress() < 10000)
    assert not train.isEnabled() and not infer.isEnabled()
    asked = time.monotonic()
    window.view.processing_status_view.stop_button.click()
    window.until(lambda: not monitor.is_processing)
    assert time.monotonic() - asked < 2  # as in the other tests of a stop: within one where the machine is free
    window.until(lambda: "stopped after epoch" in window.text)

    # Supervised has a page of its own; the solver needs no model.
    assert not window.choose("supervised").algorithm.is_model_loaded()
    assert not infer.isEnabled()
    page = window.choose("solve")
    assert infer.isEnabled() and infer.text() == "Reconstruct" and not train.isVisible()
    window.edit("Backend", ONE)
    files.get_open_file_path = lambda *_, **__: (tmp_path / "nothing.h5.zip", "")
    (browse,) = (each for each in page.widget.findChildren(widgets.QPushButton) if each.text() == "Browse…")
    browse.click()
    lines = window.work(infer).strip().splitlines()
    assert len(lines) == 2 and "Prior must be a prior or its file" in lines[1] and "nothing.h5.zip" in lines[1], lines
    window.edit("Refine", "everything")
    lines = window.work(infer).strip().splitlines()
    assert len(lines) == 1 and "Refine must be" in lines[0] and "Set Refine to" in lines[0], lines
    window.edit("Refine", "probe,positions")
    window.edit("Modes", "1")
    window.edit("Prior", "none")
    window.edit("Sweeps", 3)
    said = window.work(infer)
    assert "sweep 3 of 3: R" in said
    assert list(axes.lines[0].get_xdata())[-1] == 3
    assert not page.fold.isChecked()
    assert "Traceback" not in window.text + capsys.readouterr().err
