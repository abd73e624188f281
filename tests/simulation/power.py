"""The power of one computer: it can be set to fail at its next commits."""


class PowerCut(BaseException):
    """The computer stopped here. No Exception, so that no code of the product goes on after it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Power:
    """Called before and after every commit of a computer's database."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps: int | None = None

    def cut_after(self, steps: int) -> None:
        """Fail after this many more steps; a commit has two, before and after it."""
        self._steps = steps

    def keep(self) -> None:
        """Do not fail."""
        self._steps = None

    def __call__(self) -> None:
        """One step."""
        if self._steps is None:
            return
        if self._steps == 0:
            self._steps = None
            raise PowerCut(self.name)
        self._steps -= 1
