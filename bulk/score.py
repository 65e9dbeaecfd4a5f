"""From a file's bytes to its row, in one thread; the same functions as in the service.

Shape suffixes: K views of one image, M columns of metadata, H and W rows and columns.
"""

import hashlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bulk.archive_parts import Item
from bulk.rows import UNREADABLE, Row
from bulk.scoring_job import Options
from cxr.bundle import Bundle
from cxr.decode_and_preprocess import Preparation, Prepared, prepare
from cxr.errors import DecodeLimit, GraphError, ImageError, NeedsWorker
from cxr.graph import Graph, Runtime, open_graph
from cxr.interpret import Finding, Outputs, interpret, scope_warnings
from cxr.metadata_features import encode_metadata_features
from cxr.stoppable_decoder import StoppableDecoder
from cxr.tta import PLAIN, POLICIES, make_views

INFERENCE_FAILED = "inference_failed"
_STARTS = 3
"""How often the start of a decoding process is tried."""


class NoDecoderError(RuntimeError):
    """No decoding process could be started."""

    def __init__(self) -> None:
        super().__init__("A process for decoding could not be started.")


class Scorer:
    """A bundle's graph with one thread, and a process for codecs that must be stoppable."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        """Open the graph and prove it on the golden images; raises `BundleError`."""
        self._bundle = bundle
        self._options = options
        self._graph: Graph = open_graph(bundle, Runtime(engine=options.engine, threads=1))
        manifest = bundle.manifest
        self._views = POLICIES[manifest.tta_policy] if options.tta else (PLAIN,)
        self._preparation = Preparation(manifest.preprocess, options.limits, options.scope)
        self._decoder: StoppableDecoder | None = None

    def score(self, item: Item, data: bytes, *, is_suspect: bool = False) -> Row:
        """Return the row of one file.

        Args:
            item: the file's name in the source.
            data: the file.
            is_suspect: whether a process died over this file before; decoding it is then left to a
                process that may die.
        """
        row = self._begin(item, data)
        try:
            prepared = self._prepare(data, is_suspect=is_suspect)
            outputs = self._run(prepared)
        except ImageError as error:
            return replace(row, problem=error.code, problem_detail=str(error))
        except NoDecoderError as error:
            return replace(row, problem=UNREADABLE, problem_detail=str(error))
        except GraphError:
            return replace(
                row, problem=INFERENCE_FAILED, problem_detail="The model could not run the image."
            )
        finding = interpret(
            outputs, self._bundle.manifest, operating_point=self._options.operating_point
        )
        return self._answer(row, prepared, finding)

    def give_up(self, item: Item, data: bytes) -> Row:
        """Return the row of a file over which several processes died; the file is not decoded."""
        detail = "Several processes died over the file."
        return replace(self._begin(item, data), problem=INFERENCE_FAILED, problem_detail=detail)

    def close(self) -> None:
        """End the decoding process."""
        if self._decoder is not None:
            self._decoder.kill()

    def _begin(self, item: Item, data: bytes) -> Row:
        return Row(
            path=item.path,
            fingerprint=item.fingerprint,
            num_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            model_sha256=self._bundle.sha256,
            engine=self._graph.engine,
            precision=self._graph.precision,
        )

    def _prepare(self, data: bytes, *, is_suspect: bool) -> Prepared:
        if not is_suspect:
            with suppress(NeedsWorker):
                return prepare(data, self._preparation, can_be_stopped=False)
        seconds = self._options.decode_seconds
        try:
            return self._stoppable().prepare(data, self._preparation, seconds)
        except DecodeLimit:  # a machine that stood still meanwhile looks like a slow file
            return self._stoppable().prepare(data, self._preparation, seconds)

    def _stoppable(self) -> StoppableDecoder:
        """Return a decoding process that lives; raises `NoDecoderError`."""
        if self._decoder is not None and self._decoder.is_alive:
            return self._decoder
        for _ in range(_STARTS):
            self._decoder = StoppableDecoder(self._options.decode_memory_bytes)
            if self._decoder.start():
                return self._decoder
        raise NoDecoderError

    def _run(self, prepared: Prepared) -> Outputs:
        views_KHW = make_views(prepared.image_HW, self._views)
        outputs = self._graph.run(views_KHW, self._metadata(prepared), with_map=False)
        if not outputs.is_sound(len(views_KHW)):
            raise GraphError("the graph's outputs are not whole and finite")
        return outputs

    def _metadata(self, prepared: Prepared) -> NDArray[np.float32] | None:
        """Return `metadata_KM`, what is known beside each view, for graphs that read it."""
        if not self._bundle.manifest.metadata:
            return None
        return np.repeat(encode_metadata_features([prepared.metadata]), len(self._views), axis=0)

    def _answer(self, row: Row, prepared: Prepared, finding: Finding) -> Row:
        manifest = self._bundle.manifest
        profile = manifest.profile(tta=self._options.tta)
        metadata = prepared.metadata
        found = (
            *prepared.warnings,
            *scope_warnings(metadata, manifest.scope),
            *finding.warnings,
        )
        return replace(
            row,
            probability=finding.probability,
            label=finding.label,
            logit=finding.logit,
            threshold=finding.threshold,
            operating_point=finding.operating_point,
            thresholds=list(profile.thresholds.items()),
            age_years=metadata.age_years,
            sex=metadata.sex,
            view_position=metadata.view_position,
            novelty=finding.novelty.score,
            is_novel=finding.novelty.is_novel,
            warnings=list(dict.fromkeys(str(warning.code) for warning in found)),
        )
