"""What `torch.save` wrote, read without PyTorch: a zip of one pickle and the raw numbers of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError
from ptycho_core.models.container import shown
from ptycho_core.published.members import Members, opened
from ptycho_core.published.pickles import MALFORMED, PLAIN, Constructor, PlainUnpickler, check_instructions

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
}
"""Kinds of tensors → dtype without byte order. numpy has no bfloat16."""
FORMAT = "what torch.save of PyTorch 1.6 or later writes"


class Named(dict[Any, Any]):
    """PyTorch's ordered dictionary of weights; what is attached to it is left out."""

    def __setstate__(self, state: object) -> None:
        pass


def _tensor(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> NDArray[Any]:
    """A tensor of the numbers of a storage; it must lie inside it, and be no larger."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a tensor that is no view of its numbers")
    if len(size) != len(stride) or len(size) > 16:
        raise ValueError("a tensor whose shape and strides differ in length")
    elements = int(np.prod([*map(float, size), 1.0]))
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if elements > storage.size or (elements and last >= storage.size):
        raise ValueError("a tensor that is larger than its numbers")
    if not elements:
        return np.zeros(size, storage.dtype)
    return as_strided(storage[offset:], size, [step * storage.itemsize for step in stride]).copy()


def _parameter(tensor: NDArray[Any], *_: object) -> NDArray[Any]:
    return tensor


TENSORS: Mapping[tuple[str, str], Constructor] = {
    **PLAIN,
    ("collections", "OrderedDict"): Constructor("OrderedDict", Named),
    ("torch._utils", "_rebuild_tensor_v2"): Constructor("_rebuild_tensor_v2", _tensor),
    ("torch._utils", "_rebuild_parameter"): Constructor("_rebuild_parameter", _parameter),
    ("torch", "Size"): Constructor("Size", tuple),
    **{("torch", name): Constructor(name) for name in STORAGES},
}


class TensorUnpickler(PlainUnpickler):
    """Fetches the numbers of tensors from the other members of the zip."""

    def __init__(self, content: bytes, members: Members, folder: str, member: str) -> None:
        super().__init__(content, TENSORS, (members.source, member))
        self.members, self.folder = members, folder
        order = members.read(f"{folder}/byteorder") if f"{folder}/byteorder" in members.names else b"little"
        self.little = {b"little": True, b"big": False}[order.strip()]
        self.storages: dict[str, NDArray[Any]] = {}

    def persistent_load(self, pid: Any, /) -> NDArray[Any]:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, Constructor) or not isinstance(key, str):
            raise ValueError("a reference to something else than a tensor's numbers")
        if key not in self.storages:
            content = self.members.read(f"{self.folder}/data/{key}")
            dtype = np.dtype(STORAGES[storage.name]).newbyteorder("<" if self.little else ">")
            if len(content) != count * dtype.itemsize:
                raise ValueError(f"{len(content)} bytes for {count} numbers of {dtype.itemsize}")
            self.storages[key] = np.frombuffer(content, dtype)
        return self.storages[key]


def read_tensors(content: bytes, source: str) -> Any:
    """The value in a file that `torch.save` wrote: plain containers, tensors as arrays. Raises ArchiveError."""
    with opened(content, source) as members:
        folders = [name.removesuffix("/data.pkl") for name in members.names if name.endswith("/data.pkl")]
        scripted = any("/code/" in name for name in members.names)
        if len(folders) != 1 or scripted:
            received = "a TorchScript program" if scripted else ", ".join(shown(n, 60) for n in members.names[:8])
            remedy = "Save the weights with torch.save(model.state_dict(), …), or copy the archive again."
            raise ArchiveError(source, expected=FORMAT, received=received or "no members", remedy=remedy)
        member = f"{folders[0]}/data.pkl"
        pickled = members.read(member)
        try:
            check_instructions(pickled, (source, member))
            return TensorUnpickler(pickled, members, folders[0], member).load()
        except ArchiveError:
            raise
        except MALFORMED as error:
            received = f"{type(error).__name__}: {shown(error)}"
            remedy = "Nothing was run. It is damaged or of another kind: copy it again."
            raise ArchiveError(source, member, expected=FORMAT, received=received, remedy=remedy) from error
