"""What can go wrong with the demo, each as a sentence that says what to do next."""


class DemoError(Exception):
    """The demo cannot go on; the message is one sentence for the person who started it."""


class ChildDied(DemoError):
    """One of the demo's processes ended by itself; the message ends with its last log lines."""


class NotAnswering(DemoError):
    """A process of the demo is not there to be asked: it is switched off, starting or hanging."""
