"""Read nothing more from a connection while too many of its requests wait for their answers."""

from uvicorn.protocols.http.flow_control import FlowControl


class PipelineFlow(FlowControl):
    """Flow control that reads nothing while too many requests wait in the pipeline."""

    _is_held = False

    def hold_reading(self, is_held: bool) -> None:  # noqa: FBT001 -- the new state
        """Stop reading until further notice, or allow it again."""
        was_held = self._is_held
        self._is_held = is_held
        if is_held:
            self.pause_reading()
        elif was_held:
            self.resume_reading()

    def resume_reading(self) -> None:
        """Read on, unless the pipeline is full."""
        if not self._is_held:
            super().resume_reading()
