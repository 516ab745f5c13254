"""What goes wrong with an artifact."""


class ArtifactError(ValueError):
    """An artifact that cannot be used. `reason` is a stable word; the message names the thing."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
