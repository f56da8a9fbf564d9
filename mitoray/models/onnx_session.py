"""ONNX files that others made: looked through before anything of them runs, then opened on one device."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mitoray.errors import BadModel, BadOption

INSTALL_HINT: Final = "pip install 'mitoray[onnx]', on every machine that scores"

_STANDARD: Final = ("", "ai.onnx", "ai.onnx.ml")
"""Domains of operators that compute and do nothing else. ONNX Runtime's own domain, com.microsoft, also holds operators
that open files and call back into Python."""

_DTYPES: Final = {"tensor(float)": (torch.float32, np.float32), "tensor(float16)": (torch.float16, np.float16)}


class OnnxSession:
    """An ONNX network that takes images and gives one array of boxes, on one device.

    batch: images that it takes at once, None for any number. side_px: width and height that it takes, None for any.
    dtype: of the images, float32 or float16.
    """

    def __init__(self, onnx: bytes, device: torch.device, threads: int) -> None:
        """Raises BadModel for a file that is no such network or may not be trusted, BadOption for a missing GPU."""
        runtime = _needed("onnxruntime")
        _check_contents(onnx)
        providers = _providers(runtime, device)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other actors need the cores
        # The same bytes could also be in the runtime's own format, which nobody looked through.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = runtime.InferenceSession(onnx, options, providers=providers)
        except Exception as error:  # the runtime's classes share no base
            raise BadModel(f"ONNX model: the runtime does not take it ({_brief(error)}); export it again") from error
        if device.type == "cuda" and self._session.get_providers()[0] != "CUDAExecutionProvider":
            raise BadOption(f"device {device}: onnxruntime could not start CUDA; install the CUDA and cuDNN it names")
        self._device = device
        self._input = self._checked_input()
        self.batch, self.side_px = (size if isinstance(size, int) else None for size in self._input.shape[:4:2])
        self.dtype, self._element = _DTYPES[self._input.type]

    def _checked_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(repr(one.name) for one in inputs)
            raise BadModel(f"ONNX model: has {len(inputs)} inputs ({names}); export it with images alone")
        (images,) = inputs
        shape = images.shape
        sides = {size for size in shape[2:] if isinstance(size, int)}
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3) or len(sides) > 1:
            raise BadModel(
                f"ONNX model: takes images of shape {tuple(shape)}; export it for (n, 3, side, side), channels first"
            )
        if len(sides) == 1 and not all(isinstance(size, int) for size in shape[2:]):
            raise BadModel(f"ONNX model: takes images of shape {tuple(shape)}; fix both sides or neither")
        if images.type not in _DTYPES:
            raise BadModel(f"ONNX model: takes images of type {images.type}; export it for float32 or float16")
        return images

    def run(self, images: torch.Tensor) -> NDArray[np.float32]:
        """The network's first output, float32 (n, rows, columns).

        images: (n, 3, h, w) of `dtype`, on the device, contiguous. Raises BadModel where the network fails on them.
        """
        binding = self._session.io_binding()
        place = self._device.type, self._device.index or 0
        binding.bind_input(self._input.name, *place, self._element, tuple(images.shape), images.data_ptr())
        binding.bind_output(self._session.get_outputs()[0].name, "cpu")
        if self._device.type == "cuda":  # the runtime computes on a stream of its own
            torch.cuda.current_stream(self._device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BadModel(
                f"ONNX model: fails on images of shape {tuple(images.shape)} ({_brief(error)}); "
                "check its input size, and window_px"
            ) from error
        rows = np.asarray(binding.copy_outputs_to_cpu()[0])
        if rows.ndim != 3 or len(rows) != len(images) or rows.dtype.kind != "f":
            raise BadModel(
                f"ONNX model: gives {rows.dtype} {rows.shape} for {len(images)} images; "
                "export it with its first output (n, boxes, columns) or (n, columns, boxes)"
            )
        return rows.astype(np.float32, copy=False)


def _needed(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise BadModel(f"ONNX model: the package {package} is not installed; {INSTALL_HINT}") from error


def _providers(runtime: Any, device: torch.device) -> list[Any]:
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise BadOption(f"device {device}: this onnxruntime has no CUDA; install onnxruntime-gpu in its place")
    return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]


def _check_contents(onnx: bytes) -> None:
    """Raises BadModel unless the file is complete in itself and made of standard operators.

    Weights in other files could be any file that this process may read; operators of other domains are code that is
    not in the file.
    """
    proto = _needed("onnx")
    try:
        model = proto.load_model_from_string(onnx)
    except Exception as error:  # of the protobuf package, under names that changed
        raise BadModel("ONNX model: the file is truncated or no ONNX; copy or export it again") from error
    if not model.graph.node:
        raise BadModel("ONNX model: the file holds no network; copy or export it again")
    own = {(function.domain, function.name) for function in model.functions}
    for part in _parts(model):
        if isinstance(part, proto.TensorProto):
            if part.data_location == proto.TensorProto.EXTERNAL or part.external_data:
                raise BadModel(
                    f"ONNX model: the weights {part.name!r} are in another file; put all into one file, "
                    "with external_data=False in torch.onnx.export, or onnx.load and onnx.save"
                )
        elif isinstance(part, proto.NodeProto) and not (part.domain in _STANDARD or (part.domain, part.op_type) in own):
            raise BadModel(
                f"ONNX model: uses the custom operator {part.domain}.{part.op_type}; "
                "export it with standard operators, without an optimiser's or plug-in's own"
            )


def _parts(message: Any) -> Iterator[Any]:
    """A protobuf message and all that it holds, however deep: subgraphs and functions have nodes and weights too."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(part)


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
