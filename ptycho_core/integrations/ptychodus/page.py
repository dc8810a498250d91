"""Pages of our algorithms in Ptychodus's window, made from the settings as data, and what the window says of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from ptychodus.api.observer import Observable, Observer
from ptychodus.api.parameters import Parameter
from ptychodus.controller import core as controllers
from ptychodus.controller.data import FileDialogFactory
from ptychodus.controller.parameters import (
    DecimalLineEditParameterViewController,
    LineEditParameterViewController,
    ParameterViewBuilder,
    ParameterViewController,
)
from ptychodus.controller.processing import ProcessingController
from ptychodus.controller.processing.core import ReconstructorViewControllerFactory
from PyQt5.QtWidgets import QComboBox, QHBoxLayout, QLabel, QLineEdit, QPushButton, QToolButton, QVBoxLayout, QWidget

from ptycho_core.embedding import Setting, backends
from ptycho_core.errors import PtychoError
from ptycho_core.integrations.ptychodus.reconstructors import (
    LIBRARY,
    PtychoCoreAlgorithm,
    PtychoCoreReconstructor,
    PtychoCoreReconstructorLibrary,
)
from ptycho_core.integrations.ptychodus.settings import AUTO, MEASUREMENT, parameter_name
from ptycho_core.networks.registry import ARCHITECTURES

SECTIONS = {
    "network": {"model": "Network", "training": "Training", "inference": "Inference", "execution": "Device"},
    "solver": {"solving": "Solve", "execution": "Device"},
}
"""Which settings a page shows, and under which title."""
MEASUREMENTS = (AUTO, "intensity", "amplitude")
FILES = ("prior",)
"""Settings of text that may name a file."""
UNSET = "not set"
NO_PRODUCT = "Choose a product with diffraction data."
WORKING = "Work is being done: wait, or press Stop."
NO_MODEL = "No model is loaded: press Train, or Load Model."


class Choice(ParameterViewController, Observer):
    """A combo box that shows a value, too, which it does not offer."""

    def __init__(self, parameter: Parameter[str], items: Iterable[str], tool_tip: str) -> None:
        super().__init__()
        self._parameter, self._widget = parameter, QComboBox()
        self._widget.addItems(list(items))
        self._widget.setToolTip(tool_tip)
        self._widget.textActivated.connect(parameter.set_value)
        self._show()
        parameter.add_observer(self)

    def get_widget(self) -> QWidget:
        return self._widget

    def _show(self) -> None:
        value = self._parameter.get_value()
        if self._widget.findText(value) < 0:
            self._widget.addItem(value)
        self._widget.setCurrentText(value)

    def _update(self, observable: Observable) -> None:
        if observable is self._parameter:
            self._show()


class NamedFile(LineEditParameterViewController):
    """A line for words and files, with a button that looks for a file."""

    def __init__(self, parameter: Parameter[str], files: FileDialogFactory, tool_tip: str) -> None:
        super().__init__(parameter, tool_tip=tool_tip)
        self._files, self._named = files, parameter
        self.browse, self._whole = QPushButton("Browse…"), QWidget()
        layout = QHBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        for each in (super().get_widget(), self.browse):
            layout.addWidget(each)
        self._whole.setLayout(layout)
        self._whole.setToolTip(tool_tip)
        self.browse.clicked.connect(self._look)

    def get_widget(self) -> QWidget:
        return self._whole

    def _look(self) -> None:
        path, _ = self._files.get_open_file_path(self._whole, "Choose a file")
        if path:
            self._named.set_value(str(path))


class Page:
    """The page of one algorithm: engine and model above, then the common settings, then all others, folded."""

    def __init__(self, algorithm: PtychoCoreAlgorithm, files: FileDialogFactory) -> None:
        self.algorithm, self._files = algorithm, files
        self.widget, self.facts = QWidget(), QLabel()
        self._unset: list[tuple[QLineEdit, Setting]] = []
        self.facts.setWordWrap(True)
        self.fold, self.load, self.save = QToolButton(), QPushButton("Load model…"), QPushButton("Save model…")
        layout = QVBoxLayout()
        layout.addWidget(self.facts)
        if isinstance(algorithm, PtychoCoreReconstructor):
            buttons = QHBoxLayout()
            for button, action in ((self.load, self.load_model), (self.save, self.save_model)):
                button.clicked.connect(action)
                buttons.addWidget(button)
            layout.addLayout(buttons)
        layout.addWidget(self._settings(common=True))
        rest = self._settings(common=False)
        rest.setVisible(False)
        self.fold.setCheckable(True)
        self.fold.setText("More settings")
        self.fold.toggled.connect(rest.setVisible)
        layout.addWidget(self.fold)
        layout.addWidget(rest)
        layout.addStretch()
        self.widget.setLayout(layout)
        self.refresh()

    def refresh(self) -> None:
        """Say which engine and which model there are."""
        lines, model = [f"ptycho-core, engine: {self.algorithm.engine()}"], self.algorithm.model_facts()
        if model is not None:
            lines.append(f"Model: {model}")
        self.facts.setText("\n".join(lines))
        for line, setting in self._unset:
            value = self.algorithm.library.settings.default(setting)
            line.setPlaceholderText(UNSET if value is None else f"{UNSET}: {value}")
        if isinstance(self.algorithm, PtychoCoreReconstructor):
            self.save.setEnabled(self.algorithm.is_model_loaded())

    def load_model(self) -> None:
        """Ask for a file and load it; what is wrong with it is said in the text box."""
        assert isinstance(self.algorithm, PtychoCoreReconstructor)
        kind = self.algorithm.get_model_file_filter()
        path, _ = self._files.get_open_file_path(
            self.widget, "Load model", name_filters=[kind], selected_name_filter=kind
        )
        if path:
            self._said(self.algorithm.load_model_from_file, path)

    def save_model(self) -> None:
        """Ask for a file and save the model there."""
        assert isinstance(self.algorithm, PtychoCoreReconstructor)
        kind = self.algorithm.get_model_file_filter()
        path, _ = self._files.get_save_file_path(
            self.widget, "Save model", name_filters=[kind], selected_name_filter=kind
        )
        if path:
            self._said(self.algorithm.save_model, path)

    def _said(self, action: Any, path: Any) -> None:
        with contextlib.suppress(PtychoError):  # which the algorithm has said
            action(path)
        self.algorithm.library.host.show()

    def _settings(self, *, common: bool) -> QWidget:
        builder, settings = ParameterViewBuilder(), self.algorithm.library.settings
        network = isinstance(self.algorithm, PtychoCoreReconstructor)
        for section, title in SECTIONS["network" if network else "solver"].items():
            for name, each in settings.described[section].items():
                if each.common == common:
                    self._add(builder, each, settings.parameters[section][name], title)
            if section == "training" and common:
                tip = "What the patterns of a training file are: auto takes what the file says, or its type."
                builder.add_view_controller(
                    Choice(settings.measurement, MEASUREMENTS, tip), f"{MEASUREMENT}:", group=title
                )
        built: QWidget = builder.build_widget(add_stretch=False)
        return built

    def _add(self, builder: ParameterViewBuilder, setting: Setting, parameter: Parameter[Any], group: str) -> None:
        label, tip = f"{parameter_name(setting.name)}:", tool_tip(setting)
        control: ParameterViewController
        if items := choices(setting):
            control = Choice(parameter, items, tip)
        elif setting.kind == "path" or setting.name in FILES:
            control = NamedFile(parameter, self._files, tip)
        elif setting.optional or setting.kind == "text":
            control = LineEditParameterViewController(parameter, tool_tip=tip)
            if setting.optional:
                self._unset.append((control.get_widget(), setting))
        elif setting.kind == "boolean":
            builder.add_check_box(parameter, label, tool_tip=tip, group=group)
            return
        elif setting.kind == "integer" and setting.minimum is not None:
            builder.add_spin_box(parameter, label, tool_tip=tip, group=group)
            return
        elif setting.kind == "integer":
            builder.add_integer_line_edit(parameter, label, tool_tip=tip, group=group)
            return
        else:
            signed = setting.minimum is None or setting.minimum < 0
            control = DecimalLineEditParameterViewController(parameter, is_signed=signed, tool_tip=tip)
        builder.add_view_controller(control, label, group=group)


def choices(setting: Setting) -> tuple[str, ...]:
    """What a setting takes, where that is few; empty where it is anything."""
    known: tuple[str, ...] = tuple(map(str, setting.choices)) if setting.kind != "boolean" else ()
    if setting.name == "backend":
        known = (AUTO, *(each.name for each in backends() if each.available))
    elif setting.name == "architecture":
        known = tuple(sorted(ARCHITECTURES.names()))
    return ("", *known) if known and setting.optional else known


def tool_tip(setting: Setting) -> str:
    """Meaning, limits, and what it needs beside it."""
    limits = []
    if setting.minimum is not None:
        limits.append(f"{'above' if setting.above_minimum else 'at least'} {setting.minimum:g}")
    if setting.maximum is not None:
        limits.append(f"{'below' if setting.below_maximum else 'at most'} {setting.maximum:g}")
    if setting.powers_of_two:
        limits.append("a power of two")
    lines = [setting.help, *([f"{', '.join(limits).capitalize()}."] if limits else [])]
    needs = " and ".join(f"{parameter_name(other)} = {what}" for other, what in setting.needs.items())
    return "\n".join([*lines, *([f"Has an effect with {needs}."] if needs else [])])


class PageFactory(ReconstructorViewControllerFactory):
    """Makes the pages of a library; `pages` keeps them, by the name of the algorithm in small letters."""

    def __init__(self, library: PtychoCoreReconstructorLibrary, files: FileDialogFactory) -> None:
        super().__init__()
        self._library, self._files = library, files
        self.pages: dict[str, Page] = {}

    @property
    def name(self) -> str:
        return LIBRARY

    def create_view_controller(self, reconstructor_name: str) -> QWidget:
        algorithm = next(each for each in self._library if each.name.casefold() == reconstructor_name.casefold())
        assert isinstance(algorithm, PtychoCoreAlgorithm)
        page = self.pages[reconstructor_name] = Page(algorithm, self._files)
        return page.widget


class Processing(ProcessingController):
    """Ptychodus's controller, with our pages. For our algorithms the buttons say what can be done, and why not."""

    def __init__(
        self,
        algorithm_parameter: Any,
        processing_api: Any,
        product_repository: Any,
        product_table_model: Any,
        globus: Any,
        genesis: Any,
        view: QWidget,
        status_view: Any,
        file_dialog_factory: FileDialogFactory,
        view_controller_factories: Iterable[ReconstructorViewControllerFactory],
    ) -> None:
        known = algorithm_parameter._reconstructor_map.values()
        ours = [each for each in known if isinstance(each, PtychoCoreAlgorithm)]
        self._factories = [PageFactory(ours[0].library, file_dialog_factory)] if ours else []
        self._drawn: tuple[int, int] = (0, 0)
        super().__init__(
            algorithm_parameter,
            processing_api,
            product_repository,
            product_table_model,
            globus,
            genesis,
            view,
            status_view,
            file_dialog_factory,
            [*view_controller_factories, *self._factories],
        )
        processing_api.task_monitor.add_observer(self)
        watched = (("training", "backend"), ("solving", "backend"), ("model", "architecture"))
        for section, name in watched if ours else ():
            ours[0].library.settings.parameters[section][name].add_observer(self)

    @property
    def _current(self) -> PtychoCoreAlgorithm | None:
        current = self._algorithm_parameter.get_current_reconstructor()
        return current if isinstance(current, PtychoCoreAlgorithm) else None

    def _load_model(self) -> None:
        page = self._page()
        if page is None:
            super()._load_model()
        else:
            page.load_model()

    def _page(self) -> Page | None:
        current = self._current
        return None if current is None else self._factories[0].pages[current.name.casefold()]

    def _sync_model_to_view(self) -> None:
        super()._sync_model_to_view()
        self._say()

    def _sync_action_buttons_to_selection(self) -> None:
        super()._sync_action_buttons_to_selection()
        self._say()

    def _update(self, observable: Observable) -> None:
        super()._update(observable)
        if observable is not self._algorithm_parameter and self._current is not None:
            self._sync_action_buttons_to_selection()
            self._draw(self._current)
            lines = self._status_view.text_edit.verticalScrollBar()
            lines.setValue(lines.maximum())

    def _say(self) -> None:
        """Enable what can be done, and say what is missing."""
        page = self._page()
        if page is None:
            return
        page.refresh()
        actions, monitor = self._actions_view, self._processing_api.task_monitor
        index = self._product_view_controller.get_widget().currentIndex()
        item = self._product_repository[index] if 0 <= index < len(self._product_repository) else None
        ready = item is not None and not item.is_pending() and not item.is_failed() and item.get_dataset() is not None
        hinders = WORKING if monitor.is_processing else "" if ready else NO_PRODUCT
        actions.train_button.setEnabled(not hinders)
        actions.train_button.setToolTip(hinders or "Choose the folder of exported training data.")
        network = isinstance(page.algorithm, PtychoCoreReconstructor)
        if network and not page.algorithm.is_model_loaded():
            hinders = hinders or NO_MODEL
        actions.reconstruct_button.setEnabled(not hinders)
        actions.reconstruct_button.setToolTip(hinders)
        self._export_training_data_action.setEnabled(ready)

    def _draw(self, algorithm: PtychoCoreAlgorithm) -> None:
        """The losses so far, as long as they grow: where work has ended, the plot is again that of the product."""
        lengths = len(algorithm.training_loss), len(algorithm.validation_loss)
        if lengths == self._drawn or not any(lengths):
            return
        self._drawn = lengths
        axes = self._status_view.axes
        axes.clear()
        axes.set(title=algorithm.name, xlabel="Epoch", ylabel="Loss")
        for losses, label in ((algorithm.training_loss, "Training"), (algorithm.validation_loss, "Test data")):
            if losses:
                axes.plot([loss.epoch for loss in losses], [loss.value for loss in losses], ".-", label=label)
        axes.legend()
        axes.grid(True)
        self._status_view.figure_canvas.draw()


def install() -> None:
    """Let Ptychodus's window be made with our pages."""
    controllers.ProcessingController = Processing
