"""Reads a state dict that torch.save() wrote before PyTorch 1.6, without torch.

Such a file is five pickles (magic number, protocol, system information, the state dict, the keys of
the storages) and then the storages one after another: a 64-bit count of elements and the elements.
The pickles are read by an unpickler that knows three names and refuses all others, so that a file
cannot run code. Output: {name: (shape, little-endian float32 bytes in row-major order)}.
"""

import array
import collections
import pickle
import struct
import sys

MAGIC = 0x1950A86A20F9469CFC6C


class _Storage:
    """What a tensor's pickle refers to; the elements come after the pickles."""

    def __init__(self, key, count):
        self.key, self.count, self.values = key, count, None


def _tensor(storage, offset, shape, stride, *_):
    return storage, offset, tuple(shape), tuple(stride)


class _Unpickler(pickle.Unpickler):
    known = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch", "FloatStorage"): "float32",
        ("torch", "LongStorage"): "int64",
    }

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no state dict of floats needs")
        return self.known[module, name]

    def persistent_load(self, reference):
        kind, dtype, key, _device, count, _view = reference
        if kind != "storage":
            raise pickle.UnpicklingError(f"the file refers to a {kind}, not to a storage")
        storage = self.storages.setdefault(key, _Storage(key, count))
        storage.dtype = dtype
        return storage


def _plain(file):
    """A pickle of numbers, strings and containers only."""
    return _Unpickler(file).load()


def _row_major(values, offset, shape, stride):
    """The elements of a tensor, in the order of its indices whatever its strides."""
    axes = [(n, s) for n, s in zip(shape, stride) if n != 1]
    out = array.array("f")

    def walk(start, axes):
        if not axes:
            out.append(values[start])
            return
        (n, step), rest = axes[0], axes[1:]
        if not rest:
            out.extend(values[start : start + (n - 1) * step + 1 : step])
            return
        for i in range(n):
            walk(start + i * step, rest)

    walk(offset, axes)
    return out


def read(path):
    """The float tensors of a file, in its own order."""
    with open(path, "rb") as file:
        if _plain(file) != MAGIC:
            sys.exit(f"{path} is no state dict of a PyTorch before 1.6")
        _plain(file)  # protocol version
        if not _plain(file)["little_endian"] or sys.byteorder != "little":
            sys.exit(f"{path} cannot be read on this machine: both must be little-endian")
        unpickler = _Unpickler(file)
        state = unpickler.load()
        for key in _plain(file):
            storage = unpickler.storages[key]
            (count,) = struct.unpack("<q", file.read(8))
            if count != storage.count:
                sys.exit(f"{path} is damaged: a storage has {count} elements instead of {storage.count}")
            storage.values = array.array("f" if storage.dtype == "float32" else "q")
            storage.values.fromfile(file, count)
    return {
        name: (shape, _row_major(storage.values, offset, shape, stride).tobytes())
        for name, (storage, offset, shape, stride) in state.items()
        if storage.dtype == "float32"
    }
