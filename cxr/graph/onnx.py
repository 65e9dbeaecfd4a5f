"""A graph in ONNX Runtime, on the CPU or on CUDA.

Inputs lie in memory of the device that was bound once for each size of a batch, so
that a run allocates nothing; the CPU takes the same way as a GPU.

On the CPU, networks that only draw the map have a session of their own, which runs if the map is
wanted. On a GPU one session runs all, because a limit of memory is one session's.

Shape suffixes: N images, H and W input rows and columns, h and w map rows and columns, M columns of
metadata.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cxr.errors import BundleError, GraphError
from cxr.graph.external_data import check_no_external_data
from cxr.graph.map_part import divide
from cxr.graph.runtime import Runtime
from cxr.interpret import Outputs, no_map


class OnnxGraph:
    """A `model.onnx` in ONNX Runtime; `run` may be called from several threads at once."""

    def __init__(
        self,
        model: Path | bytes,
        runtime: Runtime = Runtime(),  # noqa: B008 - frozen
        *,
        precision: str = "fp32",
    ) -> None:
        """Open a model in a file or in memory; raise `BundleError`.

        A graph that was asked for on the GPU never falls back to the CPU in silence.
        """
        data = model if isinstance(model, bytes) else model.read_bytes()
        check_no_external_data(data)
        if runtime.device == "gpu":
            _preload_cuda()
        options = _options(runtime.threads)
        self._run_options = ort.RunOptions()
        if runtime.cancellation is not None:
            runtime.cancellation.on_cancel(partial(options.set_load_cancellation_flag, True))
            runtime.cancellation.on_cancel(partial(_stop_runs, self._run_options))
        parts = divide(data) if runtime.device == "cpu" else None
        self._sessions = [_open_session(part, options, runtime) for part in parts or (data,)]
        self._session = self._sessions[0]
        self.engine = runtime.name
        self.precision = precision
        self.num_facts = _num_facts(self._session)
        self._runtime = runtime
        self._idle: defaultdict[tuple[int, ...], SimpleQueue[_BoundBatch]] = defaultdict(
            SimpleQueue
        )

    @property
    def properties(self) -> dict[str, str]:
        """The essentials that the file carries about itself (ONNX metadata_props)."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        """Answer a batch, uint8 [N, H, W], in order; raises `GraphError`."""
        shape = (self._runtime.fill(len(batch_NHW)), *batch_NHW.shape[1:])
        try:
            bound = self._take(shape)
            outputs = bound.run(self._run_options, batch_NHW, metadata_NM, with_map=with_map)
        except Exception as exc:  # an engine raises errors of its own classes
            raise GraphError(f"ONNX Runtime could not run the batch: {type(exc).__name__}") from exc
        self._idle[shape].put(bound)
        return outputs

    def _take(self, shape: tuple[int, ...]) -> "_BoundBatch":
        try:
            return self._idle[shape].get_nowait()
        except Empty:
            return _BoundBatch(
                self._sessions,
                shape,
                self.num_facts,
                "cuda" if self._runtime.device == "gpu" else "cpu",
            )


def _stop_runs(options: ort.RunOptions) -> None:
    options.terminate = True


def _open_session(
    data: bytes, options: ort.SessionOptions, runtime: Runtime
) -> ort.InferenceSession:
    providers = _providers(runtime)
    wanted = providers[0][0]
    if wanted not in ort.get_available_providers():
        raise BundleError(
            f"this ONNX Runtime has no {wanted}; install the gpu extra, or set the device to cpu"
        )
    try:
        session = ort.InferenceSession(data, options, providers=providers)
    except Exception as exc:  # ONNX Runtime raises classes of its own without a common base
        raise BundleError(f"the graph does not open in ONNX Runtime: {type(exc).__name__}") from exc
    if session.get_providers()[0] != wanted:
        raise BundleError(
            f"ONNX Runtime could not start {wanted}; see its own message above, or set the device "
            f"to cpu"
        )
    return session


class _BoundBatch:
    """Memory for one batch on the device, bound to sessions; does one run at a time."""

    def __init__(
        self,
        sessions: Sequence[ort.InferenceSession],
        shape: tuple[int, ...],
        num_facts: int,
        device: str,
    ) -> None:
        self._host_NHW = np.zeros(shape, np.uint8)
        self._host_NM = np.zeros((shape[0], num_facts), np.float32)
        self._image = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.uint8, device, 0)
        self._bindings = [(session, self._bind(session)) for session in sessions]

    def run(
        self,
        options: ort.RunOptions,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None,
        *,
        with_map: bool,
    ) -> Outputs:
        """Run a batch of at most this size; rows that fill it up hold what was there before, and
        are cut off again.
        """
        self._host_NHW[: len(batch_NHW)] = batch_NHW
        self._image.update_inplace(self._host_NHW)
        (session, binding), *others = self._bindings
        if self._host_NM.shape[1]:
            self._host_NM[: len(batch_NHW)] = 0.0 if metadata_NM is None else metadata_NM
            binding.bind_cpu_input("metadata", self._host_NM)
        session.run_with_iobinding(binding, options)
        values = _outputs_of(session, binding)
        for map_session, map_binding in others if with_map else ():
            map_binding.bind_ortvalue_input("logit", values["logit"])
            map_session.run_with_iobinding(map_binding, options)
            values |= _outputs_of(map_session, map_binding)
        # The outputs' memory is used again by the next run.
        arrays = {name: np.array(value.numpy()[: len(batch_NHW)]) for name, value in values.items()}
        if not with_map:
            arrays["cam"] = no_map(len(batch_NHW))
        return Outputs(arrays["logit"], arrays["cam"], arrays["novelty"], arrays.get("bias"))

    def _bind(self, session: ort.InferenceSession) -> ort.IOBinding:
        binding = session.io_binding()
        binding.bind_ortvalue_input("image", self._image)
        for output in session.get_outputs():
            binding.bind_output(output.name, "cpu")
        return binding


def _outputs_of(session: ort.InferenceSession, binding: ort.IOBinding) -> dict[str, ort.OrtValue]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, binding.get_outputs(), strict=True))


def _num_facts(session: ort.InferenceSession) -> int:
    """Return the number of columns of the input `metadata`; 0 if there is none."""
    return next(
        (int(entry.shape[1]) for entry in session.get_inputs() if entry.name == "metadata"), 0
    )


def _providers(runtime: Runtime) -> list[tuple[str, dict[str, Any]]]:
    if runtime.device == "cpu":
        return [("CPUExecutionProvider", {})]
    cuda = (
        "CUDAExecutionProvider",
        {
            # the exhaustive search takes up to a second for each size of a batch
            "cudnn_conv_algo_search": "HEURISTIC",
            # doubling would keep memory that nothing needs
            "arena_extend_strategy": "kSameAsRequested",
            "gpu_mem_limit": runtime.gpu_memory_bytes,
            "use_tf32": int(runtime.precision == "fast"),  # ten bits of a factor are not fp32
        },
    )
    return [cuda]


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread steals the core on which the next image is decoded.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _preload_cuda() -> None:
    preload: Any = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
